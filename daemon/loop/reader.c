/* The reading end of a lane: receives bytes, and descriptors if it may, and cuts them into frames.
 *
 * Small frames are copied out of one staging buffer; a large body gets memory of its own, sized once,
 * that the kernel writes into directly. How a frame is laid out is told in wire/lane.py.
 */

#include "loop.h"

#include <errno.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { STAGING_BYTES = 1 << 16, READS_PER_TURN = 4, MAX_DESCRIPTORS = 4 };

typedef struct {
    PyObject_HEAD
    unsigned char *staging;
    size_t filled;
    uint64_t max_body_bytes;
    PyObject *make_room;   /* size -> writable memoryview, for a body that does not fit `staging` */
    PyObject *error;       /* the class of LaneError */
    PyObject *descriptors; /* list of what came and no frame has claimed */
    PyObject *header;      /* the last one; the next is often the same, and then the same object */
    PyObject *body;        /* memory of a large frame that is being received, else NULL */
    Py_buffer body_view;   /* held while `body` is */
    size_t body_filled;
    Prefix prefix; /* of that frame */
    uint64_t sizes[MAX_TENSORS];
    PyObject *frame_type;
    char busy, ended, crowded;
} Reader;

static void reader_drop_body(Reader *self) {
    if (self->body != NULL) {
        PyBuffer_Release(&self->body_view);
        Py_CLEAR(self->body);
    }
}

static int reader_traverse(Reader *self, visitproc visit, void *arg) {
    Py_VISIT((PyObject *)TYPE_OF(self));
    Py_VISIT(self->make_room);
    Py_VISIT(self->error);
    Py_VISIT(self->descriptors);
    Py_VISIT(self->body);
    return 0;
}

static int reader_clear(Reader *self) {
    reader_drop_body(self);
    Py_CLEAR(self->make_room);
    Py_CLEAR(self->error);
    Py_CLEAR(self->descriptors);
    Py_CLEAR(self->header);
    return 0;
}

static void reader_dealloc(Reader *self) {
    PyTypeObject *type = TYPE_OF(self);
    PyObject_GC_UnTrack(self);
    reader_clear(self);
    PyMem_Free(self->staging);
    Py_XDECREF(self->frame_type);
    PyObject_GC_Del(self);
    Py_DECREF((PyObject *)type);
}

static PyObject *reader_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    unsigned long long max_body_bytes;
    PyObject *make_room, *error, *descriptors;
    if (kwargs != NULL && PyDict_Size(kwargs) != 0) {
        PyErr_SetString(PyExc_TypeError, "Reader takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "KOOO!", &max_body_bytes, &make_room, &error, &PyList_Type,
                          &descriptors))
        return NULL;
    State *state = PyType_GetModuleState(type);
    if (state == NULL)
        return NULL;
    Reader *self = PyObject_GC_New(Reader, type);
    if (self == NULL)
        return NULL;
    memset((char *)self + sizeof(PyObject), 0, sizeof(Reader) - sizeof(PyObject));
    self->max_body_bytes = max_body_bytes;
    Py_INCREF(make_room);
    self->make_room = make_room;
    Py_INCREF(error);
    self->error = error;
    Py_INCREF(descriptors);
    self->descriptors = descriptors;
    Py_INCREF(state->frame_type);
    self->frame_type = state->frame_type;
    PyObject_GC_Track(self);
    self->staging = PyMem_Malloc(STAGING_BYTES);
    if (self->staging == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

/* Give the header as bytes; the last one again when it is equal. A new reference. */
static PyObject *reader_header(Reader *self, const unsigned char *data, size_t size) {
    PyObject *last = self->header;
    if (last != NULL && (size_t)PyBytes_Size(last) == size &&
        memcmp(PyBytes_AsString(last), data, size) == 0) {
        Py_INCREF(last);
        return last;
    }
    PyObject *header = PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)size);
    if (header != NULL) {
        Py_INCREF(header);
        Py_XDECREF(self->header);
        self->header = header;
    }
    return header;
}

static PyObject *slice_of(PyObject *view, uint64_t start, uint64_t size) {
    PyObject *first = PyLong_FromUnsignedLongLong(start);
    PyObject *end = PyLong_FromUnsignedLongLong(start + size);
    PyObject *slice = first != NULL && end != NULL ? PySlice_New(first, end, NULL) : NULL;
    Py_XDECREF(first);
    Py_XDECREF(end);
    if (slice == NULL)
        return NULL;
    PyObject *part = PyObject_GetItem(view, slice);
    Py_DECREF(slice);
    return part;
}

/* Cut a whole body into header and tensors: copies of `data`, or views on `large`. */
static PyObject *reader_frame(Reader *self, const Prefix *prefix, const unsigned char *data,
                              PyObject *large) {
    PyObject *tensors = PyList_New(prefix->count);
    if (tensors == NULL)
        return NULL;
    uint64_t offset = prefix->header_size + padding(prefix->header_size);
    for (unsigned n = 0; n < prefix->count; n++) {
        uint64_t size = self->sizes[n];
        PyObject *tensor =
            large != NULL ? slice_of(large, offset, size) : copy_of(data + offset, size);
        if (tensor == NULL) {
            Py_DECREF(tensors);
            return NULL;
        }
        PyList_SetItem(tensors, n, tensor);
        offset += size + padding(size);
    }
    PyObject *header = reader_header(self, data, prefix->header_size);
    if (header == NULL) {
        Py_DECREF(tensors);
        return NULL;
    }
    PyObject *frame = frame_new(self->frame_type, prefix, header, tensors);
    Py_DECREF(header);
    return frame;
}

/* Append a new reference to a list; steals it. */
static int append(PyObject *list, PyObject *item) {
    if (item == NULL)
        return -1;
    int result = PyList_Append(list, item);
    Py_DECREF(item);
    return result;
}

/* Count the bytes behind prefix and lengths; -1 when they are beyond the limit. */
static int64_t body_bytes(const Reader *self, const Prefix *prefix) {
    uint64_t total = prefix->header_size, limit = self->max_body_bytes;
    for (unsigned n = 0; n < prefix->count; n++) {
        total += padding(total); /* what came before; nothing is padded behind the last part */
        if (total > limit || self->sizes[n] > limit)
            return -1;
        total += self->sizes[n];
    }
    return total > limit ? -1 : (int64_t)total;
}

/* Take memory for a large frame and move what is there into it. */
static int reader_begin_body(Reader *self, const Prefix *prefix, const unsigned char *there,
                             size_t have, uint64_t size) {
    PyObject *number = PyLong_FromUnsignedLongLong(size);
    if (number == NULL)
        return -1;
    PyObject *body = PyObject_CallFunctionObjArgs(self->make_room, number, NULL);
    Py_DECREF(number);
    if (body == NULL)
        return -1;
    if (PyObject_GetBuffer(body, &self->body_view, PyBUF_WRITABLE) < 0) {
        Py_DECREF(body);
        return -1;
    }
    if ((uint64_t)self->body_view.len != size) {
        PyBuffer_Release(&self->body_view);
        Py_DECREF(body);
        PyErr_SetString(PyExc_ValueError, "make_room gave memory of another size");
        return -1;
    }
    self->body = body;
    memcpy(self->body_view.buf, there, have);
    self->body_filled = have;
    self->prefix = *prefix;
    return 0;
}

/* Consume one frame, or the head of a large one, at `start`. Bytes used, 0 for none, -1 for error. */
static Py_ssize_t reader_take(Reader *self, size_t start, PyObject *frames) {
    const unsigned char *at = self->staging + start;
    size_t available = self->filled - start;
    Prefix prefix;
    if (available < PREFIX_BYTES)
        return 0;
    memcpy(&prefix, at, PREFIX_BYTES);
    if (prefix.kind < FIRST_KIND || prefix.kind > LAST_KIND || prefix.count > MAX_TENSORS ||
        prefix.header_size > MAX_HEADER_BYTES) {
        PyErr_Format(self->error,
                     "expected a lane frame, found kind %u with %u tensors and a header of %u bytes",
                     prefix.kind, prefix.count, prefix.header_size);
        return -1;
    }
    size_t head = PREFIX_BYTES + 8 * (size_t)prefix.count;
    if (available < head)
        return 0;
    memcpy(self->sizes, at + PREFIX_BYTES, 8 * (size_t)prefix.count);
    int64_t size = body_bytes(self, &prefix);
    if (size < 0) {
        PyErr_Format(self->error, "expected a lane frame of at most %llu bytes, found more",
                     (unsigned long long)self->max_body_bytes);
        return -1;
    }
    if ((uint64_t)size <= available - head) {
        if (append(frames, reader_frame(self, &prefix, at + head, NULL)) < 0)
            return -1;
        return (Py_ssize_t)(head + (size_t)size);
    }
    if ((uint64_t)size <= STAGING_BYTES - head)
        return 0;
    if (reader_begin_body(self, &prefix, at + head, available - head, (uint64_t)size) < 0)
        return -1;
    return (Py_ssize_t)available;
}

/* Take note of `count` bytes received where `reader_room` said. */
static int reader_received(Reader *self, size_t count, PyObject *frames) {
    if (self->body != NULL) {
        self->body_filled += count;
        if (self->body_filled < (size_t)self->body_view.len)
            return 0;
        PyObject *frame = reader_frame(self, &self->prefix, self->body_view.buf, self->body);
        reader_drop_body(self);
        return append(frames, frame);
    }
    self->filled += count;
    size_t start = 0;
    while (start < self->filled) {
        Py_ssize_t used = reader_take(self, start, frames);
        if (used < 0)
            return -1;
        if (used == 0)
            break;
        start += (size_t)used;
    }
    if (start != 0) {
        memmove(self->staging, self->staging + start, self->filled - start);
        self->filled -= start;
    }
    return 0;
}

static unsigned char *reader_room(Reader *self, size_t *size) {
    if (self->body != NULL) {
        *size = (size_t)self->body_view.len - self->body_filled;
        return (unsigned char *)self->body_view.buf + self->body_filled;
    }
    *size = STAGING_BYTES - self->filled;
    return self->staging + self->filled;
}

/* Keep what came with some bytes; the kernel gives no more than there is room for. */
static int reader_keep(Reader *self, struct msghdr *message) {
    int failed = 0;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part; part = CMSG_NXTHDR(message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t n = 0; n < count; n++) {
            int fd;
            memcpy(&fd, CMSG_DATA(part) + n * sizeof(int), sizeof(int));
            if (failed || append(self->descriptors, PyLong_FromLong(fd)) < 0) {
                failed = 1;
                close(fd);
            }
        }
    }
    if (failed)
        return -1;
    if ((message->msg_flags & MSG_CTRUNC) || PyList_Size(self->descriptors) > MAX_DESCRIPTORS) {
        PyErr_Format(self->error,
                     "expected at most %d descriptors that no frame has claimed, found more",
                     MAX_DESCRIPTORS);
        return -1;
    }
    return 0;
}

/* Receive what is there, or comes while it is looked for. The interpreter lock is not held. */
static Py_ssize_t receive(int fd, struct msghdr *message, const Look *look, char *crowded) {
    const int flags = MSG_DONTWAIT | MSG_CMSG_CLOEXEC;
    uint64_t now = look->moment_ns != 0 ? monotonic_ns() : 0, until = now + look->moment_ns;
    for (;;) {
        Py_ssize_t count = recvmsg(fd, message, flags);
        if (count >= 0 || (errno != EINTR && errno != EAGAIN && errno != EWOULDBLOCK))
            return count;
        if (errno == EINTR)
            continue;
        if (now >= until || *crowded)
            return count;
        uint64_t before = now;
        sched_yield();
        now = monotonic_ns();
        *crowded = now - before > look->crowded_ns;
    }
}

/* Receive once. Bytes, 0 at the end of the lane, -1 when there is nothing, -2 for error. */
static Py_ssize_t reader_read(Reader *self, int fd, int takes_descriptors, const Look *look,
                              size_t *room_bytes) {
    union {
        struct cmsghdr alignment;
        char bytes[CMSG_SPACE(MAX_DESCRIPTORS * sizeof(int))];
    } control;
    struct iovec part;
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    Py_ssize_t count;
    int failure;
    char crowded = 0;
    part.iov_base = reader_room(self, &part.iov_len);
    *room_bytes = part.iov_len;
    if (takes_descriptors) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof(control.bytes);
    }
    Py_BEGIN_ALLOW_THREADS
    count = receive(fd, &message, look, &crowded);
    failure = errno;
    Py_END_ALLOW_THREADS
    if (look->moment_ns != 0)
        self->crowded = crowded;
    if (count < 0) /* a reset comes after everything that was sent before it */
        return failure == EAGAIN || failure == EWOULDBLOCK ? -1 : 0;
    if (takes_descriptors && (message.msg_controllen != 0 || message.msg_flags & MSG_CTRUNC) &&
        reader_keep(self, &message) < 0)
        return -2;
    return count;
}

static PyObject *reader_receive_all(Reader *self, int fd, int takes_descriptors, Look look) {
    PyObject *frames = PyList_New(0);
    if (frames == NULL)
        return NULL;
    for (int turn = 0; turn < READS_PER_TURN; turn++) {
        size_t room_bytes;
        Py_ssize_t count = reader_read(self, fd, takes_descriptors, &look, &room_bytes);
        look.moment_ns = 0; /* what has begun to come is not waited for */
        if (count == 0)
            self->ended = 1;
        if (count == 0 || count == -1)
            break;
        if (count < 0 || reader_received(self, (size_t)count, frames) < 0) {
            Py_DECREF(frames);
            return NULL;
        }
        if (PyList_Size(frames) > 0 || (size_t)count < room_bytes)
            break;
    }
    return frames;
}

/* Give the frames that are now whole, as a list. */
PyObject *reader_frames(PyObject *reader, int fd, int takes_descriptors, Look look) {
    Reader *self = (Reader *)reader;
    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "a Reader is for one thread at a time");
        return NULL;
    }
    self->busy = 1;
    PyObject *frames = reader_receive_all(self, fd, takes_descriptors, look);
    self->busy = 0;
    return frames;
}

/* Whether nothing but frames has come: no end, and no descriptor. */
int reader_is_plain(PyObject *reader) {
    const Reader *self = (const Reader *)reader;
    return !self->ended && PyList_Size(self->descriptors) == 0;
}

/* Whether the last look was given up. */
int reader_is_crowded(PyObject *reader) { return ((const Reader *)reader)->crowded; }

/* The class of its errors; borrowed. */
PyObject *reader_error(PyObject *reader) { return ((const Reader *)reader)->error; }

static PyObject *reader_turn(Reader *self, PyObject *const *args, Look look) {
    long fd = PyLong_AsLong(args[0]);
    if (fd == -1 && PyErr_Occurred())
        return NULL;
    int takes_descriptors = PyObject_IsTrue(args[1]);
    if (takes_descriptors < 0)
        return NULL;
    return reader_frames((PyObject *)self, (int)fd, takes_descriptors, look);
}

static PyObject *reader_receive(Reader *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "receive takes a descriptor and whether others may come");
        return NULL;
    }
    return reader_turn(self, args, (Look){0});
}

static PyObject *reader_look(Reader *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 4) {
        PyErr_SetString(PyExc_TypeError, "look takes what receive takes, and two times");
        return NULL;
    }
    Look look = {PyLong_AsUnsignedLongLong(args[2]), PyLong_AsUnsignedLongLong(args[3])};
    return PyErr_Occurred() ? NULL : reader_turn(self, args, look);
}

static PyObject *reader_between_frames(Reader *self, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(self->body == NULL && self->filled == 0);
}

static PyMethodDef reader_methods[] = {
    {"receive", (PyCFunction)(void (*)(void))reader_receive, METH_FASTCALL,
     "receive(fd, takes_descriptors) -> list of the frames that are now whole"},
    {"look", (PyCFunction)(void (*)(void))reader_look, METH_FASTCALL,
     "look(fd, takes_descriptors, moment_ns, crowded_ns) -> as receive, looking for so long"},
    {NULL},
};

static PyGetSetDef reader_getset[] = {
    {"between_frames", (getter)reader_between_frames, NULL, NULL, NULL},
    {NULL},
};

static PyMemberDef reader_members[] = {
    {"ended", T_BOOL, offsetof(Reader, ended), READONLY, NULL},
    {"crowded", T_BOOL, offsetof(Reader, crowded), READONLY, NULL},
    {NULL},
};

static PyType_Slot reader_slots[] = {
    {Py_tp_doc, "Reader(max_body_bytes, make_room, error, descriptors): receives frames."},
    {Py_tp_new, reader_new},
    {Py_tp_dealloc, reader_dealloc},
    {Py_tp_traverse, reader_traverse},
    {Py_tp_clear, reader_clear},
    {Py_tp_methods, reader_methods},
    {Py_tp_getset, reader_getset},
    {Py_tp_members, reader_members},
    {0, NULL},
};

PyType_Spec reader_spec = {
    .name = "superbrain.transport._loop.Reader",
    .basicsize = sizeof(Reader),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = reader_slots,
};
