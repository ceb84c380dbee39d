/* Frames: as an object when received, as bytes when sent. */

#include "loop.h"

#include <errno.h>
#include <sys/socket.h>

enum {
    JOINED_BELOW_BYTES = 1 << 12, /* a frame of this size is copied into one piece */
    MAX_TOGETHER = 64,            /* tensors; a frame of more goes the twin's way */
};

static const unsigned char zeros[ALIGNMENT];

static void frame_dealloc(Frame *self) {
    PyTypeObject *type = TYPE_OF(self);
    Py_XDECREF(self->header);
    Py_XDECREF(self->tensors);
    PyObject_Free(self);
    Py_DECREF((PyObject *)type);
}

static PyMemberDef frame_members[] = {
    {"kind", T_UBYTE, offsetof(Frame, kind), READONLY, NULL},
    {"priority", T_UBYTE, offsetof(Frame, priority), READONLY, NULL},
    {"request_id", T_ULONGLONG, offsetof(Frame, request_id), READONLY, NULL},
    {"deadline_ns", T_ULONGLONG, offsetof(Frame, deadline_ns), READONLY, NULL},
    {"header", T_OBJECT_EX, offsetof(Frame, header), READONLY, NULL},
    {"tensors", T_OBJECT_EX, offsetof(Frame, tensors), READONLY, NULL},
    {NULL},
};

static PyType_Slot frame_slots[] = {
    {Py_tp_doc, "One frame as received; as `wire.lane.LaneFrame`, with a header of `bytes`."},
    {Py_tp_dealloc, frame_dealloc},
    {Py_tp_members, frame_members},
    {0, NULL},
};

PyType_Spec frame_spec = {
    .name = "superbrain.transport._loop.Frame",
    .basicsize = sizeof(Frame),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = frame_slots,
};

/* Steals `tensors`, also on failure. */
PyObject *frame_new(PyObject *type, const Prefix *prefix, PyObject *header, PyObject *tensors) {
    Frame *self = PyObject_New(Frame, (PyTypeObject *)type);
    if (self == NULL) {
        Py_DECREF(tensors);
        return NULL;
    }
    self->kind = prefix->kind;
    self->priority = prefix->priority;
    self->request_id = prefix->request_id;
    self->deadline_ns = prefix->deadline_ns;
    Py_INCREF(header);
    self->header = header;
    self->tensors = tensors;
    return (PyObject *)self;
}


/* --- the sending end -------------------------------------------------------------------------- */

/* A frame that is about to be written; `outgoing_close` lets go of all it holds. */
typedef struct {
    Prefix prefix;
    unsigned held; /* of `tensors` */
    Py_buffer header, tensors[MAX_TOGETHER];
    uint64_t total;
} Outgoing;

static void outgoing_close(Outgoing *self) {
    if (self->header.obj != NULL)
        PyBuffer_Release(&self->header);
    while (self->held > 0)
        PyBuffer_Release(&self->tensors[--self->held]);
}

static int as_u64(PyObject *number, uint64_t most, uint64_t *result) {
    *result = PyLong_AsUnsignedLongLong(number);
    if (PyErr_Occurred())
        return -1;
    if (*result > most) {
        PyErr_Format(PyExc_OverflowError, "expected at most %llu", (unsigned long long)most);
        return -1;
    }
    return 0;
}

static int sequence_buffer(PyObject *sequence, Py_ssize_t n, Py_buffer *view) {
    PyObject *item = PySequence_GetItem(sequence, n);
    if (item == NULL)
        return -1;
    int result = PyObject_GetBuffer(item, view, PyBUF_SIMPLE); /* which keeps the item */
    Py_DECREF(item);
    return result;
}

/* Read kind, priority, request id and deadline. */
static int read_prefix(Prefix *self, PyObject *const *args) {
    uint64_t kind, priority;
    if (as_u64(args[0], UINT8_MAX, &kind) < 0 || as_u64(args[1], UINT8_MAX, &priority) < 0 ||
        as_u64(args[2], UINT64_MAX, &self->request_id) < 0 ||
        as_u64(args[3], UINT64_MAX, &self->deadline_ns) < 0)
        return -1;
    self->kind = (uint8_t)kind;
    self->priority = (uint8_t)priority;
    return 0;
}

/* Take hold of header and tensors. 0, 1 for too much for here, -1 for error; close it in any case. */
static int outgoing_open(Outgoing *self, const Prefix *prefix, PyObject *header, PyObject *tensors) {
    self->prefix = *prefix;
    self->held = 0;
    self->header.obj = NULL;
    Py_ssize_t count = PySequence_Size(tensors);
    if (count < 0 || PyObject_GetBuffer(header, &self->header, PyBUF_SIMPLE) < 0)
        return -1;
    if (count > MAX_TOGETHER || self->header.len > MAX_HEADER_BYTES)
        return 1;
    self->total = (uint64_t)self->header.len;
    for (Py_ssize_t n = 0; n < count; n++) {
        if (sequence_buffer(tensors, n, &self->tensors[n]) < 0)
            return -1;
        self->held++;
        self->total += padding(self->total) + (uint64_t)self->tensors[n].len;
    }
    self->prefix.count = (uint16_t)count;
    self->prefix.header_size = (uint32_t)self->header.len;
    self->total += PREFIX_BYTES + 8 * (uint64_t)count;
    return 0;
}

/* Write prefix, lengths and header; give the end. */
static unsigned char *outgoing_head(const Outgoing *self, unsigned char *to) {
    memcpy(to, &self->prefix, PREFIX_BYTES);
    to += PREFIX_BYTES;
    for (unsigned n = 0; n < self->held; n++, to += 8) {
        uint64_t size = (uint64_t)self->tensors[n].len;
        memcpy(to, &size, 8);
    }
    memcpy(to, self->header.buf, (size_t)self->header.len);
    return to + self->header.len;
}

/* Write a whole frame of `total` bytes. */
static void outgoing_copy(const Outgoing *self, unsigned char *to) {
    to = outgoing_head(self, to);
    uint64_t last = (uint64_t)self->header.len;
    for (unsigned n = 0; n < self->held; n++) {
        size_t gap = padding(last);
        memset(to, 0, gap);
        to += gap;
        last = (uint64_t)self->tensors[n].len;
        memcpy(to, self->tensors[n].buf, last);
        to += last;
    }
}

/* Write a small frame: bytes, or None when it is not for here. A new reference. */
PyObject *frame_encode(const Prefix *prefix, PyObject *header, PyObject *tensors) {
    Outgoing frame;
    PyObject *result = NULL;
    int opened = outgoing_open(&frame, prefix, header, tensors);
    if (opened == 1 || (opened == 0 && frame.total > JOINED_BELOW_BYTES)) {
        result = Py_None;
        Py_INCREF(result);
    } else if (opened == 0) {
        result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)frame.total);
        if (result != NULL)
            outgoing_copy(&frame, (unsigned char *)PyBytes_AsString(result));
    }
    outgoing_close(&frame);
    return result;
}

/* encode(kind, priority, request_id, deadline_ns, header, tensors) -> bytes; None: not for here */
PyObject *loop_encode(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count) {
    if (count != 6) {
        PyErr_SetString(PyExc_TypeError, "encode takes six arguments");
        return NULL;
    }
    Prefix prefix;
    return read_prefix(&prefix, args) < 0 ? NULL : frame_encode(&prefix, args[4], args[5]);
}

/* Hand parts to the kernel. Bytes it took, SENT_BROKEN when the peer takes nothing any more. */
Py_ssize_t offer(int fd, struct iovec *parts, size_t count) {
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
    Py_ssize_t sent;
    int failure;
    Py_BEGIN_ALLOW_THREADS
    do
        sent = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    failure = errno;
    Py_END_ALLOW_THREADS
    if (sent < 0)
        return failure == EAGAIN || failure == EWOULDBLOCK ? 0 : SENT_BROKEN;
    return sent;
}

static Py_ssize_t send_joined(const Outgoing *frame, int fd) {
    unsigned char joined[JOINED_BELOW_BYTES];
    struct iovec part = {joined, frame->total};
    outgoing_copy(frame, joined);
    return offer(fd, &part, 1);
}

/* The head by itself, then the tensors where they lie. */
static Py_ssize_t send_parts(const Outgoing *frame, int fd) {
    struct iovec parts[1 + 2 * MAX_TOGETHER];
    size_t used = 1;
    uint64_t last = (uint64_t)frame->header.len;
    unsigned char *head = PyMem_Malloc(PREFIX_BYTES + 8 * MAX_TOGETHER + (size_t)last);
    if (head == NULL)
        return 0; /* the twin will meet the same want, and say so */
    parts[0].iov_base = head;
    parts[0].iov_len = (size_t)(outgoing_head(frame, head) - head);
    for (unsigned n = 0; n < frame->held; n++) {
        parts[used++] = (struct iovec){(void *)zeros, padding(last)};
        last = (uint64_t)frame->tensors[n].len;
        parts[used++] = (struct iovec){frame->tensors[n].buf, last};
    }
    Py_ssize_t sent = offer(fd, parts, used);
    PyMem_Free(head);
    return sent;
}

/* Send a frame: SENT_ALL, or how many bytes the peer took, or why none. */
Py_ssize_t frame_send(int fd, const Prefix *prefix, PyObject *header, PyObject *tensors) {
    Outgoing frame;
    Py_ssize_t sent = 0;
    int opened = outgoing_open(&frame, prefix, header, tensors);
    if (opened < 0)
        sent = SENT_ERROR;
    else if (opened == 0) {
        sent = frame.total <= JOINED_BELOW_BYTES ? send_joined(&frame, fd) : send_parts(&frame, fd);
        if (sent >= 0 && (uint64_t)sent == frame.total)
            sent = SENT_ALL;
    }
    outgoing_close(&frame);
    return sent;
}

/* send(fd, kind, priority, request_id, deadline_ns, header, tensors) -> None when all was sent, else
 * how many bytes were, -1 when the peer takes nothing any more */
PyObject *loop_send(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count) {
    if (count != 7) {
        PyErr_SetString(PyExc_TypeError, "send takes seven arguments");
        return NULL;
    }
    long fd = PyLong_AsLong(args[0]);
    if (fd == -1 && PyErr_Occurred())
        return NULL;
    Prefix prefix;
    if (read_prefix(&prefix, args + 1) < 0)
        return NULL;
    Py_ssize_t sent = frame_send((int)fd, &prefix, args[5], args[6]);
    if (sent == SENT_ERROR)
        return NULL;
    if (sent == SENT_ALL)
        Py_RETURN_NONE;
    return PyLong_FromSsize_t(sent);
}
