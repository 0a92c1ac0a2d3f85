# What the two sides of a call share: the front, compiled once, fills these structures; the kernels, compiled
# once for each SIMD level and type of map, read them. Nothing here has code.

cdef extern from "kernels/numbers.h" nogil:
    # Cython must be able to tell them apart; what they are is for the C compiler to know.
    ctypedef float real  # in which sums are kept
    ctypedef unsigned char pixel  # of maps
    ctypedef unsigned short pooled  # of results and gradients
    bint NARROW  # pooled is narrower than real
    bint CHECKED  # a checked build
    unsigned int CYROIALIGN_SOURCES  # a checksum of src/, by setup.py


cdef enum:  # a pooling: what becomes of a bin; the order is that of _kernels/__init__.py
    MEAN
    MAX
    ONNX_MAX
    ROI_POOL
    PS_ROI_ALIGN
    PS_ROI_POOL
    PRROI_POOL
    CROP_BILINEAR
    CROP_NEAREST
    ROI_ALIGN_ROTATED
    POOLINGS


cdef enum:  # a direction
    FORWARD
    BACKWARD  # the gradient to the maps
    BOXES_BACKWARD  # the gradient to the boxes
    DIRECTIONS


cdef enum:
    PACKED_READS = 2  # times that RoIs must read the rows of a map that are worth packing
    CURSORS = 512  # RoIs that one sweep along a row tile takes
    ROW_TILE = 8  # rows of a row tile, and columns of a step along it: benchmarks/layouts.py
    PATCH_SIDE = 64  # rows and columns that a patch of samples of a rotated bin reaches, a power of two
    TAPS_OF_BINS = 8192  # of rotated bins that are found at once: more than a patch can reach
    LINES_OF_BINS = 256


cdef enum:  # where samples of a bin lie outside the map on an axis: see Axis.outside
    NOWHERE = 0
    BEFORE = 1  # the first one does, and perhaps others
    AFTER = 2  # only samples that follow those in range


cdef enum:  # buffers of a thread, in numbers of type real; src/once/shapes.pxi says how long each is
    LINES  # rows of the map that the y step has weighted and summed, or bins that it spreads
    PIXELS  # LINES of channels-first maps, transposed
    BINS  # a row of bins, or several
    STAGED  # results on their way to memory
    GRAD_LINE
    GRAD_BINS
    GRADIENT  # rows of a gradient, where it is narrower than its sums
    HELD  # rows of a map, as pixels
    PATCHED  # patches of the samples of a rotated box
    CELLS  # what weight a patch gives to pixels
    TAPS  # where the taps of its bins are, and next what they weigh
    WEIGHTS
    STRETCHES  # these taps as pixels side by side
    BUFFERS


cdef struct Settings:  # of a call
    int pooling
    Py_ssize_t bins_y, bins_x
    int ratio  # samples a bin on each axis; 0: adaptive
    bint aligned
    bint clockwise  # angles of boxes
    bint single  # T is float, not double
    bint channels_last
    int threads
    size_t outside_bytes  # of a result of crop_and_resize, where bins outside the map are not 0
    char outside[8]  # what they are
    bint at_most  # so many threads, or fewer if others need the cores
    Py_ssize_t depth, bins_z  # of a volume, whose slices are read as one tall map; 0: a map


# A sparse matrix (CSR): line i sums weight[t] * source[index[t]] over indptr[i] <= t < indptr[i + 1].
cdef struct Axis:
    int size  # lines
    int* indptr
    Py_ssize_t* index
    real* weight
    real* by_start  # how the weights change with the edges of the box: of the gradient to boxes
    real* by_end
    int* outside  # of each line: of a maximum


cdef struct Frame:  # a rotated box on its map, in numbers of the type T
    double x, y  # of its centre
    double width, height
    double sine, cosine
    double slack  # more than rounding moves a sample, in pixels


cdef struct Level:  # one map of those that a call pools from
    Py_ssize_t height, width
    double scale_y, scale_x, scale_z
    const pixel* map
    pooled* gradient
    real* sums  # of the gradient, itself unless it is narrower; NULL: each piece has its own
    Py_ssize_t y_stride  # from line to line of what the y step reads
    Py_ssize_t row_tiles, parts, pieces  # how the work on it is cut: see src/once/schedule.pxi


cdef struct Run:  # strips that follow each other
    Py_ssize_t column
    int slot
    int strips


cdef struct RoI:  # one box and its tables
    Py_ssize_t row  # of the boxes and of the result
    Py_ssize_t image
    const Level* level
    Axis y, x
    Py_ssize_t* strip  # the first column of each strip; slot j of strip s is column strip[s] + j
    int strips
    Run* run
    int runs
    Py_ssize_t* map_row  # of a transposed axis: the row of the map that each line of y is
    int* first_row  # row tiles: where each bin of y begins to read, and of x
    int* first_column
    int* low  # the slots that each bin of x reads: [low, high)
    int* high
    Py_ssize_t top, bottom  # rows [top, bottom): forward, where bins begin; backward, all that it adds to
    double* to_corners  # gradient to boxes: [x1, y1, x2, y2][channel]
    Frame frame  # of a rotated box, which has no axes


cdef struct Patch:  # samples of a rotated bin: rows [top, bottom) of columns [left, right)
    double top, bottom, left, right


cdef struct Stretch:  # pixels side by side on a plane
    Py_ssize_t at, length, row


cdef struct Rows:  # some rows of one image of a gradient, and a block of their channels
    Py_ssize_t channel, first, last  # rows [first, last)
    Py_ssize_t at, count, length, pitch  # where they begin; stretches of numbers, `pitch` apart


cdef struct Cursor:  # bins of a RoI that begin in a row tile: [first_y, last_y), and those of x from `x` on
    const RoI* roi
    int first_y, last_y
    int x


cdef struct Scratch:  # of one thread
    real* at[BUFFERS]
    Cursor* cursors
    long long computed  # nanoseconds, where the threads of the call are its own choice


cdef struct Piece:  # of the work of a call: who carries it out owns what it writes
    const Level* level
    const RoI* rois  # of the level, backward of `image`
    Py_ssize_t count, image
    Py_ssize_t part  # forward: which of the parts of the level
    Py_ssize_t first, last  # forward: units of those RoIs, of which each has Call.units
    Py_ssize_t channel, channels  # `channels` from `channel` on
    Py_ssize_t first_row, last_row
    Rows rows  # backward: of the gradient
    Rows summed  # the same where they are summed
    real* sums
    bint ends  # backward: no RoI comes after these


cdef struct Call
ctypedef void (*Work)(const Call* call, const Piece* piece, const Scratch* scratch) noexcept nogil


cdef struct Table:  # what a level has for a type of map
    int kind  # of map: see src/once/views.pxi
    unsigned int sources  # that it was built from: modules of others do not understand each other
    int lanes  # numbers in a vector
    int real_bytes, pooled_bytes
    bint narrow  # pooled is narrower than real
    Work work[DIRECTIONS][POOLINGS]  # NULL: maps of this type are converted first


cdef struct Visit:  # a box in the order of visits
    Py_ssize_t level, image, row_group, column, row


cdef struct Call:
    Settings settings
    int direction
    const Table* table
    pooled* bins  # forward: the result; else the gradient to it, only read
    double* grad_boxes
    int* argmax  # of each bin of RoIPool: the pixel in its plane that won, or -1; NULL: not wanted or known
    Level* levels
    Py_ssize_t level_count
    const Py_ssize_t* level_of_box  # NULL: all boxes are of the first
    const double* boxes
    Py_ssize_t box_numbers  # of each box
    Py_ssize_t images, channels, rois  # channels: of the result
    Py_ssize_t map_channels  # of a map: more where each bin has channels of its own
    int threads
    # How it is cut
    Py_ssize_t width, blocks  # channels in a block, and how many blocks
    Py_ssize_t pieces  # of all levels
    Py_ssize_t units  # that a RoI can be cut into: 1, or its lines of bins
    Py_ssize_t pitch  # from line to line of the scratch
    Py_ssize_t batch  # rows of bins, or lines, that a kernel takes at once
    bint non_temporal  # results are written past the caches
    bint sparse  # bins have few pixels, which others may not share: see src/kernels/sparse.pxi
    bint ragged  # pixels are no whole number of vectors: rows of them are put together in scratch
    bint packed  # planes are summed as pixels, in scratch: see src/kernels/packed.pxi
    bint staged  # they, or narrow ones, are put together in scratch before they are written
    # Tables
    bint transposed  # axes turn bins into pixels, for the gradient of a mean
    bint tiled  # RoIs note where their bins begin, for tiles of rows
    int margin  # rows and columns at the end of a map that are left out
    int strip_width  # pixels in a strip; 0: x is not covered with strips
    Py_ssize_t x_stride  # from line to line of what the x step reads
    Py_ssize_t taps_y, taps_x, strips, lines_y, lines_x  # the most that a RoI can have
    Py_ssize_t height, map_width  # of the tallest map and of the widest
    Py_ssize_t window, ordered  # RoIs that are put in order at a time; the first of those that are
    Py_ssize_t capacity, first, count  # RoIs of a chunk: room for, the first of these, how many
    Visit* visits
    RoI* planned
    char* tables
    Py_ssize_t table_bytes
    char* drafts
    Py_ssize_t draft_bytes
    # Scratch
    Py_ssize_t reals[BUFFERS]
    Scratch* scratch
    void* memory  # of all this
