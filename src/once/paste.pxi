# Masks into images: RoIAlign the other way round, one mask after the other, and separable too.
#
# A row of an image is a blend of two rows of its mask, once those are stretched to the width of the box. So
# x comes first, once a row of the mask and not once a row of the image, and what is left is one loop over
# numbers that lie side by side. With a threshold they are compared where they come into being.


ctypedef fused mask_number:
    float
    double


cdef struct Span:  # what a mask covers of one axis of an image: a row of an array of doubles
    double start, size  # where the mask begins and how far it reaches: mirrored, if that is below 0; not 0
    double first, last  # pixels [first, last)


cdef struct Pasting:  # a call
    Py_ssize_t height, width  # of an image
    Py_ssize_t side  # of a mask
    double padding  # pixels of nothing around a mask, which belong to it
    bint fades  # beyond its pixels a mask is nothing; else those at its edges repeat
    bint compared  # the result is truth values
    double threshold
    bint blank  # the result is all zeros already


cdef struct Stencil:  # a thread's scratch: two rows of a mask, stretched
    void* row  # of the mask, between a pixel of nothing and two
    int* index  # for each pixel of a row of the image, the first of the two in `row` that it lies between
    void* near  # and their weights
    void* far
    void* stretched[2]  # rows of even number and of odd: those that a row of the image lies between
    Py_ssize_t number[2]  # which they are


cdef size_t place_stencil(const Pasting* pasting, Stencil* stencil, size_t size, char* memory) noexcept nogil:
    """Place the scratch of a thread, of numbers of a size; the bytes it takes."""
    cdef Room room = room_at(memory)
    cdef int i
    stencil.row = take(&room, pasting.side + 3, size)
    stencil.index = <int*> take(&room, pasting.width, sizeof(int))
    stencil.near = take(&room, pasting.width, size, LINE_BYTES)
    stencil.far = take(&room, pasting.width, size, LINE_BYTES)
    for i in range(2):
        stencil.stretched[i] = take(&room, pasting.width, size, LINE_BYTES)
    return room.used + -room.used % LINE_BYTES


def paste(
    const mask_number[:, :, ::1] masks, const double[:, :, ::1] spans, unsigned char[:, :, ::1] result,
    double padding, bint fades, threshold, bint blank, int threads,
    bint at_most,
):
    """Paste masks (N, M, M) into images (N, H, W), which are seen as bytes.

    Images are of the type of the masks; with a threshold, of truth values. spans (N, 2, 4) has a Span of y
    and of x for each. Each piece owns some rows of an image, each thread its scratch.
    """
    cdef Pasting pasting
    cdef Stencil stencil
    cdef Py_ssize_t count = masks.shape[0], tiles = 1, i
    cdef long long begin = wall_ns(), computed = 0
    cdef size_t bytes
    cdef char* memory
    cdef char* scratch
    pasting.height, pasting.width, pasting.side = result.shape[1], result.shape[2], masks.shape[1]
    pasting.padding, pasting.fades, pasting.blank = padding, fades, blank
    pasting.compared, pasting.threshold = threshold is not None, 0
    if pasting.compared:
        pasting.threshold = threshold
    else:
        pasting.width //= sizeof(mask_number)
    if count * pasting.height * pasting.width < SERIAL_BINS:
        threads = 1
    elif at_most and threads > 1:
        threads = threads_worth_having(threads)
    threads = threads_to_be_had(threads)
    if threads > 1:
        tiles = min(pasting.height, up(PIECES * threads, count))
    bytes = place_stencil(&pasting, &stencil, sizeof(mask_number), NULL)
    memory = <char*> malloc(threads * bytes + LINE_BYTES)
    if memory == NULL:
        raise MemoryError("no memory for the rows of the masks")
    scratch = memory + -<size_t> memory % LINE_BYTES
    with nogil:
        for i in prange(count * tiles, num_threads=threads, schedule="dynamic", use_threads_if=threads > 1):
            computed += paste_rows(
                &pasting, &masks[i // tiles, 0, 0], <const Span*> &spans[i // tiles, 0, 0],
                &result[i // tiles, 0, 0], pasting.height * (i % tiles) // tiles,
                pasting.height * (i % tiles + 1) // tiles, scratch + threadid() * bytes,
            )
        free(memory)
        if at_most:
            note_call(threads, wall_ns() - begin, computed)


cdef inline double place_on_mask(const Pasting* pasting, const Span* span, Py_ssize_t pixel) noexcept nogil:
    """Where the middle of a pixel of the image lies on the mask, whose first pixel has its middle at 0."""
    cdef double along = (pixel + 0.5 - span.start) / span.size
    cdef double place = along * (pasting.side + 2 * pasting.padding) - 0.5 - pasting.padding
    return min(max(place, <double> -pasting.fades), <double> (pasting.side - 1 + pasting.fades))


cdef long long paste_rows(
    const Pasting* pasting, const mask_number* mask, const Span* spans, void* image, Py_ssize_t row,
    Py_ssize_t end, char* memory,
) noexcept nogil:
    """Rows [row, end) of the image of one mask; the nanoseconds that it took."""
    cdef const Span* y = spans
    cdef const Span* x = spans + 1
    cdef Py_ssize_t first = <Py_ssize_t> x.first, last = <Py_ssize_t> x.last, number
    cdef Py_ssize_t size = 1 if pasting.compared else sizeof(mask_number), pitch = pasting.width * size
    cdef unsigned char* target = <unsigned char*> image + row * pitch
    cdef bint nothing = pasting.compared and 0 >= pasting.threshold  # what stands where no mask is
    cdef double place
    cdef long long begin = thread_ns()
    cdef Stencil stencil
    place_stencil(pasting, &stencil, sizeof(mask_number), memory)
    if first < last and row < y.last and y.first < end:
        begin_stencil(pasting, &stencil, x, <mask_number> 0)
    else:
        first = last = 0
    while row < end:
        if first < last and y.first <= row < y.last:
            if not pasting.blank:
                memset(target, nothing, first * size)
                memset(target + last * size, nothing, pitch - last * size)
            place = place_on_mask(pasting, y, row)
            number = <Py_ssize_t> floor(place)
            stretch(pasting, &stencil, mask, number, first, last)
            stretch(pasting, &stencil, mask, number + 1, first, last)
            blend(
                pasting, target + first * size, <const mask_number*> stencil.stretched[number & 1] + first,
                <const mask_number*> stencil.stretched[(number + 1) & 1] + first, last - first,
                place - number,
            )
        elif not pasting.blank:
            memset(target, nothing, pitch)
        target += pitch
        row += 1
    return thread_ns() - begin


cdef void begin_stencil(
    const Pasting* pasting, Stencil* stencil, const Span* x, mask_number T
) noexcept nogil:
    """Find where each pixel of a row lies on the mask; T: any number of the type."""
    cdef mask_number* near = <mask_number*> stencil.near
    cdef mask_number* far = <mask_number*> stencil.far
    cdef Py_ssize_t pixel, here
    cdef double place
    stencil.number[0] = stencil.number[1] = -2  # of no row
    memset(stencil.row, 0, (pasting.side + 3) * sizeof(mask_number))
    for pixel in range(<Py_ssize_t> x.first, <Py_ssize_t> x.last):
        place = place_on_mask(pasting, x, pixel)
        here = <Py_ssize_t> floor(place)
        stencil.index[pixel] = <int> (here + 1)
        near[pixel], far[pixel] = <mask_number> (1 - (place - here)), <mask_number> (place - here)


cdef void stretch(
    const Pasting* pasting, Stencil* stencil, const mask_number* mask, Py_ssize_t number, Py_ssize_t first,
    Py_ssize_t last,
) noexcept nogil:
    """Stretch a row of the mask over pixels [first, last), unless that is what its place holds."""
    cdef mask_number* target = <mask_number*> stencil.stretched[number & 1]
    cdef const mask_number* near = <const mask_number*> stencil.near
    cdef const mask_number* far = <const mask_number*> stencil.far
    cdef mask_number* row = <mask_number*> stencil.row
    cdef const int* index = stencil.index
    cdef Py_ssize_t i
    if stencil.number[number & 1] == number:
        return
    stencil.number[number & 1] = number
    if not 0 <= number < pasting.side:
        memset(target + first, 0, (last - first) * sizeof(mask_number))
        return
    for i in range(pasting.side):
        row[i + 1] = mask[number * pasting.side + i]
    for i in range(first, last):
        target[i] = near[i] * row[index[i]] + far[i] * row[index[i] + 1]


cdef void blend(
    const Pasting* pasting, unsigned char* target, const mask_number* above, const mask_number* below,
    Py_ssize_t n, double fraction,
) noexcept nogil:
    """Write n pixels of a row of the image, from the two rows that it lies between."""
    cdef mask_number near = <mask_number> (1 - fraction), far = <mask_number> fraction
    cdef mask_number threshold = <mask_number> pasting.threshold
    cdef mask_number* numbers = <mask_number*> target
    cdef Py_ssize_t i
    if pasting.compared:
        for i in range(n):
            target[i] = near * above[i] + far * below[i] >= threshold
    else:
        for i in range(n):
            numbers[i] = near * above[i] + far * below[i]
