# The short way for plain arguments: NumPy arrays of float32 or float64 that lie in memory as the kernels
# read them, boxes as one such array or a list of them, settings of the types that they have in the
# signature. For anything else the answer is None, and then Python reads the arguments, copies what must be
# copied, and says what is wrong: here is no error, and no rule that is not there.

from cpython.buffer cimport (
    PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_IsContiguous, PyBuffer_Release, PyObject_GetBuffer,
)

from numpy import dtype as _dtype, empty as _empty, ndarray as _ndarray

cdef const Table* _plain_tables[2]  # of float32 and float64, since these take every operator
cdef tuple _plain_types = (_dtype("float32"), _dtype("float64"))

cdef enum:
    PLAIN_BOXES = 64  # that need no allocation, and the most in a list
    PLAIN_VIEWS = 3
    LONGEST = 2147483647  # axis of a map or a grid of bins
    MOST_SAMPLES = 32767


def read_plain_with(Kernels kernels):
    """Serve plain arguments of the type of these kernels."""
    _plain_tables[kernels.table.kind] = kernels.table


cdef inline int plain_kind(object array):
    """FLOAT32 or FLOAT64, or -1: NumPy has one object for each of its types in native byte order."""
    kind = array.dtype
    return FLOAT32 if kind is _plain_types[FLOAT32] else FLOAT64 if kind is _plain_types[FLOAT64] else -1


cdef class Plain:
    """One call with plain arguments; it keeps their memory, and lets it go with itself."""

    cdef Py_buffer views[PLAIN_VIEWS]
    cdef int opened, kind
    cdef double few[PLAIN_BOXES * BOX]
    cdef double* rows
    cdef Call call
    cdef Level level

    def __dealloc__(self):
        while self.opened:
            self.opened -= 1
            PyBuffer_Release(&self.views[self.opened])
        if self.rows != self.few:
            free(self.rows)

    cdef Py_buffer* view(self, object array, int axes, int flags=0) except? NULL:
        """View what is a plain array of so many axes; NULL if it is none."""
        cdef Py_buffer* view = &self.views[self.opened]
        if type(array) is not _ndarray or plain_kind(array) < 0:
            return NULL
        PyObject_GetBuffer(array, view, PyBUF_STRIDES | flags)
        if view.ndim != axes or <size_t> view.buf % view.itemsize or not PyBuffer_IsContiguous(view, c"C"):
            PyBuffer_Release(view)
            return NULL
        self.opened += 1
        return view

    cdef bint close_view(self) except -1:
        self.opened -= 1
        PyBuffer_Release(&self.views[self.opened])
        return True

    cdef bint read_settings(
        self, int pooling, object scale, object ratio, object aligned, bint channels_last
    ) except -1:
        cdef Settings* settings = &self.call.settings
        if (
            type(scale) is not float or type(ratio) is not int or type(aligned) is not bool
            or not -LONGEST <= ratio <= MOST_SAMPLES or not 0 < <double> scale < INFINITY
        ):
            return False
        self.level.scale_y = self.level.scale_x = scale
        settings.pooling, settings.ratio, settings.aligned = pooling, max(0, <int> ratio), aligned
        self.rows = self.few
        self.call.levels, self.call.level_count = &self.level, 1
        settings.channels_last = channels_last
        return 0 < self.call.map_channels

    cdef bint read_map_shape(self, const Py_ssize_t* shape, bint channels_last) noexcept:
        cdef int y = 1 if channels_last else 2
        self.call.images, self.call.map_channels = shape[0], shape[3 if channels_last else 1]
        self.level.height, self.level.width = shape[y], shape[y + 1]
        return (
            self.call.images > 0 and 0 < self.level.height <= LONGEST and 0 < self.level.width <= LONGEST
        )

    cdef bint read_boxes(self, object boxes) except -1:
        """Copy boxes, of which each has a result."""
        cdef Py_ssize_t i, count = 0
        cdef Py_buffer* view
        cdef bint fits
        cdef Call* call = &self.call
        cdef double[2] scales
        call.settings.single = self.kind == FLOAT32
        if type(boxes) is list:
            if len(<list> boxes) != call.images:
                return False
            for i in range(call.images):
                view = self.view((<list> boxes)[i], 2)
                if view == NULL:
                    return False
                fits = view.shape[1] == 4 and count + view.shape[0] <= PLAIN_BOXES
                if fits:
                    self.copy_boxes(count, view, <int> i)
                    count += view.shape[0]
                self.close_view()
                if not fits:
                    return False
        else:
            view = self.view(boxes, 2)
            if view == NULL:
                return False
            if view.shape[1] == BOX:
                count = view.shape[0]
                if count > PLAIN_BOXES:
                    self.rows = <double*> malloc(count * BOX * sizeof(double))
                    if self.rows == NULL:
                        raise MemoryError("no memory for the boxes")
                self.copy_boxes(0, view, -1)
            self.close_view()
        call.boxes, call.rois, call.box_numbers = self.rows, count, BOX
        scales[0] = scales[1] = self.level.scale_y
        # What rounds to 0 or infinity is for Python to refuse, and so is what is not defined.
        if call.settings.single and not 0 < <float> self.level.scale_y < INFINITY:
            return False
        for i in range(count):
            if not is_defined(
                self.rows + BOX * i, BOX, call.images, scales, call.settings.aligned, call.settings.single
            ):
                return False
        return count > 0

    cdef void copy_boxes(self, Py_ssize_t first, const Py_buffer* view, int image) noexcept:
        """Rows of (batch_index, x1, y1, x2, y2) from such rows, or from corners of an image."""
        cdef int corners = image >= 0, columns = BOX - corners, c
        cdef Py_ssize_t k
        cdef double* row = self.rows + BOX * first
        cdef const float* singles = <const float*> view.buf
        cdef const double* doubles = <const double*> view.buf
        cdef bint single = view.itemsize == sizeof(float)
        self.call.settings.single = self.call.settings.single and single
        for k in range(view.shape[0]):
            if corners:
                row[0] = image
            for c in range(columns):
                row[corners + c] = singles[k * columns + c] if single else doubles[k * columns + c]
            row += BOX

    cdef bint read_bins(self, object y, object x) except -1:
        if type(y) is not int or type(x) is not int or not (0 < y <= LONGEST and 0 < x <= LONGEST):
            return False
        self.call.settings.bins_y, self.call.settings.bins_x = y, x
        return True

    cdef bint read_channels(self) noexcept:
        """Find the channels of the result."""
        cdef Call* call = &self.call
        cdef Py_ssize_t area = call.settings.bins_y * call.settings.bins_x
        call.channels = call.map_channels
        if call.settings.pooling == PS_ROI_ALIGN or call.settings.pooling == PS_ROI_POOL:
            call.channels //= area
            return call.channels > 0 and call.channels * area == call.map_channels
        return True

    cdef object fill(self, tuple shape, object out, int direction, threads_for, num_threads):
        """Carry out the call into `out`, if that is plain too, or into a new array, and return it."""
        cdef Call* call = &self.call
        cdef Py_buffer* view
        cdef int i
        if out is None:
            out = _empty(shape, _plain_types[self.kind])
        elif plain_kind(out) != self.kind or out.shape != shape or not out.flags.writeable:
            return None
        view = self.view(out, 4, PyBUF_WRITABLE)
        if view == NULL:
            return None
        for i in range(self.opened - 1):
            if (
                <char*> view.buf < <char*> self.views[i].buf + self.views[i].len
                and <char*> self.views[i].buf < <char*> view.buf + view.len
            ):
                return None
        call.settings.threads, call.direction = 1, direction
        if num_threads is not None or has_work(call):
            call.settings.threads, call.settings.at_most = threads_for(num_threads)
        call.table = _plain_tables[self.kind]
        if direction == FORWARD:
            call.bins, self.level.map = <pooled*> view.buf, <const pixel*> self.views[0].buf
        else:
            call.bins, self.level.gradient = <pooled*> self.views[0].buf, <pooled*> view.buf
        carry_out(call)
        return out


def forward_plain(
    int pooling, object input, object boxes, object output_size, object scale, object ratio, object aligned,
    bint channels_last, out, threads_for, num_threads,
):
    """The result of pooling plain arguments, or None."""
    cdef Plain plain = Plain.__new__(Plain)
    cdef Py_buffer* view = plain.view(input, 4)
    cdef Call* call = &plain.call
    y = x = output_size
    if (type(output_size) is tuple or type(output_size) is list) and len(output_size) == 2:
        y, x = output_size
    if view == NULL or type(boxes) is _ndarray and out is not None and may_overlap(boxes, out):
        return None
    plain.kind = plain_kind(input)
    if not (
        plain.read_map_shape(view.shape, channels_last)
        and plain.read_settings(pooling, scale, ratio, aligned, channels_last)
        and plain.read_bins(y, x) and plain.read_channels() and plain.read_boxes(boxes)
    ):
        return None
    if channels_last:
        shape = (call.rois, call.settings.bins_y, call.settings.bins_x, call.channels)
    else:
        shape = (call.rois, call.channels, call.settings.bins_y, call.settings.bins_x)
    return plain.fill(shape, out, FORWARD, threads_for, num_threads)


def backward_plain(
    int pooling, object grad_output, object boxes, object input_shape, object scale, object ratio,
    object aligned, bint channels_last, out, threads_for, num_threads,
):
    """The gradient to a map from plain arguments, where it does not depend on the map; or None."""
    cdef Plain plain = Plain.__new__(Plain)
    cdef Py_buffer* view = plain.view(grad_output, 4)
    cdef Call* call = &plain.call
    cdef Py_ssize_t shape[4]
    cdef int i, y = 1 if channels_last else 2
    if (
        view == NULL or type(input_shape) is not tuple and type(input_shape) is not list
        or len(input_shape) != 4
        or type(boxes) is _ndarray and out is not None and may_overlap(boxes, out)
    ):
        return None
    for i in range(4):
        side = input_shape[i]
        if type(side) is not int or not 0 < side <= LONGEST:
            return None
        shape[i] = side
    plain.kind = plain_kind(grad_output)
    if not (
        plain.read_map_shape(shape, channels_last)
        and plain.read_settings(pooling, scale, ratio, aligned, channels_last)
        and plain.read_bins(view.shape[y], view.shape[y + 1]) and plain.read_channels()
        and plain.read_boxes(boxes)
        and view.shape[0] == call.rois and view.shape[3 if channels_last else 1] == call.channels
    ):
        return None
    return plain.fill(tuple(input_shape), out, BACKWARD, threads_for, num_threads)


cdef bint may_overlap(object boxes, object out) except -1:
    """Whether boxes might lie in the array to fill: lists of them are read before that is, and copied."""
    return type(out) is not _ndarray or out.base is not None or boxes.base is not None
