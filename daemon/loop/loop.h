/* The steps that every request on a lane takes, compiled: frames in, frames out, tensors checked.
 *
 * Optional. Each thing here has a twin in Python that does the same and serves where this was not
 * built; `superbrain/transport/compiled.py` chooses. Nothing is decided here: whatever is unusual is
 * said to the caller, who goes the twin's way.
 *
 *   reader.c   Reader    receives frames       as transport/lane_socket.py with wire/lane.py's decoder
 *   frames.c   encode    writes a frame        as wire/lane.py
 *              send      writes and sends one  as transport/stream_socket.py
 *   packing.c  Packing   tensors like the last as wire/datatypes.py
 *   express.c  Express   executes a request    as serve/execution.py
 *   spell.c    its turns, while all is usual   as serve/worker_loop.py and serve/executor.py
 *   relay.c    Relay     the gateway's turns   as serve/gateway.py and serve/traffic.py
 *   naming.c   ids out of headers, and into    as wire/naming.py
 *   ask.c      ask       asks and is answered  as client/lane.py
 *   shortcut.c Shortcut  once more             as client/connection.py
 *   posts.c    what is sent at a turn's end, and told.c what Python's objects are told
 *
 * Rules: the stable ABI of Python 3.11 and nothing of numpy's C API, so that one build fits all; every
 * length that a peer says is compared before it is used; the interpreter lock is let go around each
 * system call, or around a moment of them; none waits but for the gateway's next event, and where a
 * shortcut sleeps, for two milliseconds; a Reader that two threads use at once says so instead of being
 * harmed.
 */

#ifndef SUPERBRAIN_LOOP_H
#define SUPERBRAIN_LOOP_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <structmember.h>

#include <stdint.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>

/* The headers of Python 3.12 give None away uncounted, for to 3.12 it is immortal. To a 3.11 that
 * loads the same file it is not, and ends when the last count is gone. */
#undef Py_RETURN_NONE
#define Py_RETURN_NONE return Py_INCREF(Py_None), Py_None

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "frames are little-endian; on other processors the Python twins serve"
#endif

#define REVISION 5 /* of what is offered here; transport/compiled.py wants the same */

/* As wire/lane.py and wire/messages.py have them; a test compares. */
enum {
    ALIGNMENT = 64,
    PREFIX_BYTES = 24,
    FIRST_KIND = 1,
    LAST_KIND = 9,
    MAX_TENSORS = 1024,
    MAX_HEADER_BYTES = 1 << 20,
};

typedef struct {
    uint8_t kind, priority;
    uint16_t count;
    uint32_t header_size;
    uint64_t request_id, deadline_ns;
} Prefix;

_Static_assert(sizeof(Prefix) == PREFIX_BYTES, "the prefix has no gaps");

enum { REQUEST = 2, RESPONSE = 3, FORWARD = 6 };

/* Attributes of Python's objects that are read or written here; module.c has their names. */
enum {
    ATTR_SINCE, /* WorkerFigures */
    ATTR_BEGAN, /* StageClock */
    ATTR_FIRST,
    ATTR_ENGINE,
    ATTR_ROOM,       /* Tally */
    ATTR_MODEL_NAME, /* Result; the first two also of ResponseForm */
    ATTR_MODEL_VERSION,
    ATTR_ID,
    ATTR_OUTPUTS,
    ATTR_NUMBER, /* PendingRequest, with ATTR_ID */
    ATTR_ENVELOPE,
    ATTR_HEADER,
    ATTR_TENSORS,
    ATTR_VERSION,
    ATTR_PRIORITY,
    ATTR_ARRIVED,
    ATTR_DEADLINE,
    ATTR_DEATHS,
    ATTR_SPAN,
    ATTR_FD, /* Peer */
    ATTR_PEER, /* Envelope */
    ATTR_FRAMES,
    ATTR_REQUESTS, /* ModelRoute */
    ATTR_ANSWERED,
    ATTRIBUTES
};

typedef struct {
    PyObject *frame_type, *packing_type, *reader_type, *names[ATTRIBUTES];
} State;

#define TYPE_OF(self) Py_TYPE((PyObject *)(self))

static inline uint64_t padding(uint64_t size) { return -size % ALIGNMENT; }

static inline uint64_t monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Give memory of its own with a copy of `size` bytes, as a memoryview. */
static inline PyObject *copy_of(const void *data, uint64_t size) {
    PyObject *copy = PyByteArray_FromStringAndSize(data, (Py_ssize_t)size);
    PyObject *view = copy != NULL ? PyMemoryView_FromObject(copy) : NULL;
    Py_XDECREF(copy);
    return view;
}

/* A frame as received. */
typedef struct {
    PyObject_HEAD
    unsigned char kind, priority;
    unsigned long long request_id, deadline_ns;
    PyObject *header, *tensors;
} Frame;

/* A row of a tally, as serve/tally.py has it. */
typedef struct {
    int64_t arrived_ns, began_ns, first_ns, engine_ns, ended_ns, flags;
} Row;

typedef struct {
    PyObject *name, *value;
} Attribute;

/* How long to look for something, giving way in between; 0 for once. Who gives way for too long is
 * crowded, and looks no more. */
typedef struct {
    uint64_t moment_ns, crowded_ns;
} Look;

/* What `frame_send` gives if not the number of bytes that the peer took. */
enum { SENT_BROKEN = -1, SENT_ERROR = -2, SENT_ALL = -3 };

extern PyType_Spec frame_spec, reader_spec, packing_spec, express_spec, shortcut_spec, relay_spec;

PyObject *frame_new(PyObject *type, const Prefix *prefix, PyObject *header, PyObject *tensors);
Py_ssize_t frame_send(int fd, const Prefix *prefix, PyObject *header, PyObject *tensors);
Py_ssize_t offer(int fd, struct iovec *parts, size_t count);
PyObject *frame_encode(const Prefix *prefix, PyObject *header, PyObject *tensors);
PyObject *packing_pack(PyObject *packing, PyObject *arrays);
PyObject *packing_unpack(PyObject *packing, PyObject *tensors);
PyObject *reader_frames(PyObject *reader, int fd, int takes_descriptors, Look look);
int reader_is_plain(PyObject *reader);
int reader_is_crowded(PyObject *reader);
PyObject *reader_error(PyObject *reader);
PyObject *ask_exchange(const State *state, PyObject *reader, int fd, const Prefix *prefix,
                       PyObject *header, PyObject *tensors, PyObject *answers, Look look,
                       int sleep_ms);
int header_without_id(PyObject *header, PyObject **bare, PyObject **name);
PyObject *header_with_id(PyObject *header, PyObject *name);

int tally_add(const State *state, PyObject *tally, const Row *row);
int tell(PyObject *whom, PyObject *name, uint64_t value);
int heard(PyObject *whom, PyObject *name, int64_t *value);
int count_up(PyObject *whom, PyObject *name);
PyObject *taken_exception(void);
PyObject *made_of(PyTypeObject *type, const Attribute *attributes, int count);

PyObject *loop_encode(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *loop_ask(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *loop_send(PyObject *module, PyObject *const *args, Py_ssize_t count);

#endif
