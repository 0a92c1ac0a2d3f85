# The step that a mean is made of: lines of numbers, weighted and summed as one line of an axis says.
#
# Adjacent numbers are taken as vectors, and each tap of a line adds a vector of the source times its weight.
# Whether they are pixels of a row or channels of a pixel is up to the caller.

cdef enum:
    PIXEL_RUN = 1024  # numbers that all taps of a bin are summed for before the next numbers


cdef inline void sum_taps(
    real* target, Py_ssize_t target_pitch, const number* source, Py_ssize_t source_pitch,
    Py_ssize_t lines, Py_ssize_t count, const Py_ssize_t* index, const real* weight, int taps,
    bint add, bint widen,
) noexcept nogil:
    """`weighted_sum` with one to four taps; taps, add and widen are constants where this is inlined.

    So is a small count, since a row of a channels-first RoI has a strip or two, or three, or four.
    """
    if lines == 1 or count > 4:
        sum_lines[number](
            target, target_pitch, source, source_pitch, lines, count, index, weight, taps, add, widen
        )
    elif count == 1:
        sum_lines[number](
            target, target_pitch, source, source_pitch, lines, 1, index, weight, taps, add, widen
        )
    elif count == 2:
        sum_lines[number](
            target, target_pitch, source, source_pitch, lines, 2, index, weight, taps, add, widen
        )
    elif count == 3:
        sum_lines[number](
            target, target_pitch, source, source_pitch, lines, 3, index, weight, taps, add, widen
        )
    else:
        sum_lines[number](
            target, target_pitch, source, source_pitch, lines, 4, index, weight, taps, add, widen
        )


cdef inline void sum_lines(
    real* target, Py_ssize_t target_pitch, const number* source, Py_ssize_t source_pitch,
    Py_ssize_t lines, Py_ssize_t count, const Py_ssize_t* index, const real* weight, int taps,
    bint add, bint widen,
) noexcept nogil:
    cdef const number* a = source + index[0]
    cdef const number* b = source + index[1 if taps > 1 else 0]
    cdef const number* c = source + index[2 if taps > 2 else 0]
    cdef const number* d = source + index[3 if taps > 3 else 0]
    cdef real a_weight = weight[0], b_weight = weight[1 if taps > 1 else 0]
    cdef real c_weight = weight[2 if taps > 2 else 0], d_weight = weight[3 if taps > 3 else 0]
    cdef Py_ssize_t i, end = count * LANES, j
    cdef lanes total
    cdef wide wide_total
    for j in range(lines):
        i = 0
        if number is real:
            while WIDE > 1 and widen and add and i + WIDE * LANES <= end:
                wide_total = a_weight * load_wide(a + i)
                if taps > 1:
                    wide_total = wide_total + b_weight * load_wide(b + i)
                if taps > 2:
                    wide_total = wide_total + c_weight * load_wide(c + i)
                if taps > 3:
                    wide_total = wide_total + d_weight * load_wide(d + i)
                store_wide(target + i, load_wide(target + i) + wide_total)
                i += WIDE * LANES
        while i < end:
            total = a_weight * load_numbers[number](a + i)
            if taps > 1:
                total = total + b_weight * load_numbers[number](b + i)
            if taps > 2:
                total = total + c_weight * load_numbers[number](c + i)
            if taps > 3:
                total = total + d_weight * load_numbers[number](d + i)
            store(target + i, load(target + i) + total if add else total)
            i += LANES
        a += source_pitch
        b += source_pitch
        c += source_pitch
        d += source_pitch
        target += target_pitch


cdef inline void weighted_sum(
    real* target, Py_ssize_t target_pitch, const number* source, Py_ssize_t source_pitch,
    Py_ssize_t lines, Py_ssize_t count, const Axis* axis, int line, bint add, bint widen,
) noexcept nogil:
    """Apply one line of an axis to `count` vectors that lie side by side, and so for `lines` lines of them.

    add: to what the target holds. widen: use wide vectors for sums that do; these wait for memory more
    than for arithmetic, of which wide vectors lower the clock.

    Taps are summed by fours, the first group taking what is over. This order is the same for every
    level and block: no other choice here may touch the sums.
    """
    cdef int t = axis.indptr[line], end = axis.indptr[line + 1]
    cdef int head = (end - t) % 4
    cdef const Py_ssize_t* index = axis.index + t
    cdef const real* weight = axis.weight + t
    cdef Py_ssize_t i, j
    if t == end:
        if not add:
            for j in range(lines):
                for i in range(count):
                    store(target + j * target_pitch + i * LANES, zeros())
        return
    if head == 0:
        sum_taps[number](
            target, target_pitch, source, source_pitch, lines, count, index, weight, 4, add, widen
        )
        head = 4
    elif head == 1:
        sum_taps[number](
            target, target_pitch, source, source_pitch, lines, count, index, weight, 1, add, widen
        )
    elif head == 2:
        sum_taps[number](
            target, target_pitch, source, source_pitch, lines, count, index, weight, 2, add, widen
        )
    else:
        sum_taps[number](
            target, target_pitch, source, source_pitch, lines, count, index, weight, 3, add, widen
        )
    t += head
    while t < end:
        index = axis.index + t
        weight = axis.weight + t
        sum_taps[number](
            target, target_pitch, source, source_pitch, lines, count, index, weight, 4, True, widen
        )
        t += 4


cdef void sum_first(
    real* target, const number* source, const Axis* axis, int line, Py_ssize_t n, bint add
) noexcept nogil:
    """`weighted_sum` for one vector of which only n lanes may be touched: slower."""
    cdef int t = axis.indptr[line], end = axis.indptr[line + 1]
    cdef int group = (end - t + 3) % 4 + 1
    cdef lanes part
    if t == end and not add:
        store_first(target, zeros(), n)
    while t < end:
        part = axis.weight[t] * load_first_numbers[number](source + axis.index[t], n)
        for t in range(t + 1, t + group):
            part = part + axis.weight[t] * load_first_numbers[number](source + axis.index[t], n)
        store_first(target, load_first(target, n) + part if add else part, n)
        t += 1
        group = 4
        add = True


cdef inline void sum_channels(
    real* target, const number* source, Py_ssize_t n, const Axis* axis, int line, bint add, bint widen
) noexcept nogil:
    """One line of an axis for n numbers that lie side by side."""
    cdef Py_ssize_t whole = n // LANES * LANES
    weighted_sum[number](target, 0, source, 0, 1, n // LANES, axis, line, add, widen)
    if whole < n:
        sum_first[number](target + whole, source + whole, axis, line, n - whole, add)


cdef inline void sum_pixels(
    real* target, Py_ssize_t target_pitch, const number* source, Py_ssize_t source_pitch,
    Py_ssize_t pixels, Py_ssize_t n, const Axis* axis, int line,
) noexcept nogil:
    """One line of an axis for n channels of each of some pixels in a row, at once where they are whole."""
    cdef Py_ssize_t i = 0, part
    if n == source_pitch and n == target_pitch:
        while i < n * pixels:
            part = min(n * pixels - i, PIXEL_RUN)
            sum_channels[number](target + i, source + i, part, axis, line, False, True)
            i += part
    else:
        for i in range(pixels):
            sum_channels[number](
                target + i * target_pitch, source + i * source_pitch, n, axis, line, False, False
            )
