/* The gateway's turns as long as nothing but usual requests and their answers come: from clients to
 * workers, and back.
 *
 * The usual request is small, whole, and like one before in everything but its id and its tensors, for
 * a model that has a lane with room. Whatever else comes ends the spell and is handed to the twin, by
 * serve/gateway.py and serve/traffic.py: there are the rules that this one has to keep.
 */

#include "posts.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum {
    MAX_EVENTS = 64,
    SCRATCH_BYTES = 1 << 16,
    MAX_FRAMES = 32, /* of a usual message */
    MAX_KEPT_HEADER_BYTES = 4096,
    MAX_REPLY_BYTES = 1 << 13,
};

/* Flags of a frame of ZMTP, wire/zmtp.py. */
enum { MORE = 1, LONG = 2, SHORT_LIMIT = 256 };

/* What the twin knows of a client on which nothing waits: itself, and its envelopes. */
enum { CLIENT, BARE, DELIMITED, PEER_PARTS };

/* What it knows of a lane on which nothing waits. */
enum { READER, OUTSTANDING, ROUTE, TALLY, LANE_PARTS };

/* What follows from a header: how to pass its requests on. */
enum { TIMEOUT_NS, PRIORITY, VERSION, TO_ROUTE, SLOTS, WAY_PARTS };
enum { SLOT_OUTSTANDING, WINDOW, SLOT_FD, SLOT_PARTS };

typedef struct {
    PyObject_HEAD
    PyObject *peers, *lanes; /* by descriptor: those on which nothing waits */
    PyObject *ways;          /* by header without its id */
    PyObject *numbers;       /* gives the next request's */
    PyObject *request_type;  /* PendingRequest */
    PyObject *asked, *answered; /* the frames that say what a message is */
    PyObject *no_deaths;
    State *state; /* of the module, which the type keeps */
    unsigned char *scratch;
    Posts posts;
    PyObject *ready;  /* list of (fd, events) that are for the twin */
    PyObject *found;  /* (fd, what came there), else NULL */
    PyObject *unsent; /* as of posts.c */
} Relay;

static int relay_traverse(Relay *self, visitproc visit, void *arg) {
    Py_VISIT((PyObject *)TYPE_OF(self));
    Py_VISIT(self->peers);
    Py_VISIT(self->lanes);
    Py_VISIT(self->ways);
    Py_VISIT(self->numbers);
    Py_VISIT(self->request_type);
    return 0;
}

static int relay_clear(Relay *self) {
    Py_CLEAR(self->peers);
    Py_CLEAR(self->lanes);
    Py_CLEAR(self->ways);
    Py_CLEAR(self->numbers);
    Py_CLEAR(self->request_type);
    Py_CLEAR(self->asked);
    Py_CLEAR(self->answered);
    Py_CLEAR(self->no_deaths);
    return 0;
}

static void relay_dealloc(Relay *self) {
    PyTypeObject *type = TYPE_OF(self);
    PyObject_GC_UnTrack(self);
    relay_clear(self);
    PyMem_Free(self->scratch);
    PyObject_GC_Del(self);
    Py_DECREF((PyObject *)type);
}

/* Relay(peers, lanes, ways, numbers, request_type, asked, answered) */
static PyObject *relay_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs)) {
    PyObject *peers, *lanes, *ways, *numbers, *request_type, *asked, *answered;
    if (!PyArg_ParseTuple(args, "O!O!O!OO!O!O!", &PyDict_Type, &peers, &PyDict_Type, &lanes,
                          &PyDict_Type, &ways, &numbers, &PyType_Type, &request_type,
                          &PyBytes_Type, &asked, &PyBytes_Type, &answered))
        return NULL;
    Relay *self = PyObject_GC_New(Relay, type);
    if (self == NULL)
        return NULL;
    memset((char *)self + sizeof(PyObject), 0, sizeof(Relay) - sizeof(PyObject));
    self->state = PyType_GetModuleState(type);
    PyObject **const kept[] = {&self->peers,        &self->lanes, &self->ways,    &self->numbers,
                               &self->request_type, &self->asked, &self->answered};
    PyObject *const given[] = {peers, lanes, ways, numbers, request_type, asked, answered};
    for (int n = 0; n < 7; n++) {
        Py_INCREF(given[n]);
        *kept[n] = given[n];
    }
    self->no_deaths = PyLong_FromLong(0);
    self->scratch = PyMem_Malloc(SCRATCH_BYTES);
    PyObject_GC_Track(self);
    if (self->scratch == NULL)
        PyErr_NoMemory();
    if (self->state == NULL || self->scratch == NULL || self->no_deaths == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static PyObject *by_number(PyObject *dict, long number) {
    PyObject *key = PyLong_FromLong(number);
    PyObject *value = key == NULL ? NULL : PyDict_GetItemWithError(dict, key);
    Py_XDECREF(key);
    return value;
}

static int is_tuple_of(PyObject *value, Py_ssize_t size) {
    return value != NULL && PyTuple_Check(value) && PyTuple_Size(value) == size;
}

/* --- messages of ZMTP ------------------------------------------------------------------------- */

typedef struct {
    const unsigned char *data;
    size_t size;
} Part;

typedef struct {
    int count;
    Part parts[MAX_FRAMES];
    size_t used; /* bytes of all */
} Message;

/* Cut a message out of what was received. 0 when it is not whole, or not usual. */
static int message_cut(Message *self, const unsigned char *data, size_t size) {
    size_t at = 0;
    self->count = 0;
    for (unsigned flags = MORE; flags & MORE;) {
        if (size - at < 2 || self->count == MAX_FRAMES)
            return 0;
        flags = data[at];
        uint64_t length = data[at + 1];
        at += 2;
        if (flags > (MORE | LONG))
            return 0;
        if (flags & LONG) { /* eight bytes, of which one has been read */
            if (size - at < 7)
                return 0;
            for (int n = 0; n < 7; n++)
                length = length << 8 | data[at++];
        }
        if (length > size - at)
            return 0;
        self->parts[self->count++] = (Part){data + at, (size_t)length};
        at += (size_t)length;
    }
    self->used = at;
    return 1;
}

static int part_is(const Part *self, PyObject *bytes) {
    return self->size == (size_t)PyBytes_Size(bytes) &&
           memcmp(self->data, PyBytes_AsString(bytes), self->size) == 0;
}

static PyObject *part_bytes(const Part *self) {
    return PyBytes_FromStringAndSize((const char *)self->data, (Py_ssize_t)self->size);
}

/* Write the head of a frame; give its end. */
static unsigned char *write_head(unsigned char *to, size_t size, int more) {
    *to++ = (unsigned char)((more ? MORE : 0) | (size < SHORT_LIMIT ? 0 : LONG));
    for (int shift = size < SHORT_LIMIT ? 0 : 56; shift >= 0; shift -= 8)
        *to++ = (unsigned char)((uint64_t)size >> shift);
    return to;
}

/* Write a message of a few small parts: bytes, or None when it is too much for here. */
static PyObject *message_written(const Part *parts, int count) {
    size_t total = 0;
    for (int n = 0; n < count; n++) {
        if (parts[n].size > MAX_REPLY_BYTES)
            Py_RETURN_NONE;
        total += parts[n].size + (parts[n].size < SHORT_LIMIT ? 2 : 9);
    }
    if (total > MAX_REPLY_BYTES)
        Py_RETURN_NONE;
    PyObject *written = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)total);
    if (written == NULL)
        return NULL;
    unsigned char *to = (unsigned char *)PyBytes_AsString(written);
    for (int n = 0; n < count; n++) {
        to = write_head(to, parts[n].size, n + 1 < count);
        memcpy(to, parts[n].data, parts[n].size);
        to += parts[n].size;
    }
    return written;
}

/* --- from clients to workers ------------------------------------------------------------------ */

/* The lane with the least outstanding that has room, and on which nothing waits; or NULL. */
static PyObject *free_slot(const Relay *self, PyObject *slots) {
    PyObject *best = NULL;
    Py_ssize_t least = 0;
    for (Py_ssize_t n = 0; n < PyTuple_Size(slots); n++) {
        PyObject *slot = PyTuple_GetItem(slots, n);
        if (!is_tuple_of(slot, SLOT_PARTS) || !PyDict_Check(PyTuple_GetItem(slot, SLOT_OUTSTANDING)))
            return NULL;
        Py_ssize_t count = PyDict_Size(PyTuple_GetItem(slot, SLOT_OUTSTANDING));
        if (count >= PyLong_AsSsize_t(PyTuple_GetItem(slot, WINDOW)) ||
            (best != NULL && count >= least))
            continue;
        best = slot;
        least = count;
    }
    if (best == NULL)
        return NULL;
    return by_number(self->lanes, PyLong_AsLong(PyTuple_GetItem(best, SLOT_FD))) ? best : NULL;
}

static PyObject *tensors_list(const Part *parts, int count) {
    PyObject *tensors = PyList_New(count);
    for (int n = 0; tensors != NULL && n < count; n++) {
        PyObject *tensor = part_bytes(&parts[n]);
        if (tensor == NULL)
            Py_CLEAR(tensors);
        else
            PyList_SetItem(tensors, n, tensor);
    }
    return tensors;
}

/* A request on its way. Nothing here is owned. */
typedef struct {
    PyObject *way, *slot, *envelope, *header, *tensors, *id, *number;
    uint64_t arrived_ns, deadline_ns;
} Travelling;

/* As serve/directory.py's PendingRequest. A new reference. */
static PyObject *pending(const Relay *self, const Travelling *request) {
    PyObject *const *names = self->state->names;
    PyObject *version = PyTuple_GetItem(request->way, VERSION);
    PyObject *priority = PyTuple_GetItem(request->way, PRIORITY);
    PyObject *const borrowed[] = {request->number, request->envelope, request->header,
                                  request->tensors, request->id,      version,
                                  priority,        self->no_deaths,   Py_None};
    for (int n = 0; n < 9; n++)
        Py_INCREF(borrowed[n]);
    const Attribute attributes[] = {
        {names[ATTR_NUMBER], borrowed[0]},
        {names[ATTR_ENVELOPE], borrowed[1]},
        {names[ATTR_HEADER], borrowed[2]},
        {names[ATTR_TENSORS], borrowed[3]},
        {names[ATTR_ID], borrowed[4]},
        {names[ATTR_VERSION], borrowed[5]},
        {names[ATTR_PRIORITY], borrowed[6]},
        {names[ATTR_DEATHS], borrowed[7]},
        {names[ATTR_SPAN], borrowed[8]},
        {names[ATTR_ARRIVED], PyLong_FromUnsignedLongLong(request->arrived_ns)},
        {names[ATTR_DEADLINE], PyLong_FromUnsignedLongLong(request->deadline_ns)},
    };
    return made_of((PyTypeObject *)self->request_type, attributes, 11);
}

/* Write the request's frame, and take note that it travels. 1, 0 when it is too large for here. */
static int relay_forward(Relay *self, const Travelling *request) {
    Prefix prefix = {
        .kind = FORWARD,
        .priority = (uint8_t)PyLong_AsLong(PyTuple_GetItem(request->way, PRIORITY)),
        .request_id = PyLong_AsUnsignedLongLong(request->number),
        .deadline_ns = request->deadline_ns,
    };
    if (PyErr_Occurred())
        return -1;
    PyObject *written = frame_encode(&prefix, request->header, request->tensors);
    if (written == NULL || written == Py_None) {
        Py_XDECREF(written);
        return written == NULL ? -1 : 0;
    }
    PyObject *made = pending(self, request);
    if (made == NULL ||
        count_up(PyTuple_GetItem(request->way, TO_ROUTE), self->state->names[ATTR_REQUESTS]) < 0 ||
        PyDict_SetItem(PyTuple_GetItem(request->slot, SLOT_OUTSTANDING), request->number, made) < 0) {
        Py_XDECREF(made);
        Py_DECREF(written);
        return -1;
    }
    Py_DECREF(made);
    posts_add(&self->posts, (int)PyLong_AsLong(PyTuple_GetItem(request->slot, SLOT_FD)), written);
    return 1;
}

/* Whether that may be an id as JSON has it between quotes; what is no UTF-8 is found elsewhere. */
static int is_plain(PyObject *name) {
    const unsigned char *data = (const unsigned char *)PyBytes_AsString(name);
    Py_ssize_t size = PyBytes_Size(name);
    for (Py_ssize_t n = 0; n < size; n++)
        if (data[n] < ' ')
            return 0;
    return size > 0;
}

/* Find the way for a header; its id is a new reference. NULL when there is none. */
static PyObject *way_of(const Relay *self, PyObject *header, PyObject **id) {
    PyObject *bare, *name;
    if (header_without_id(header, &bare, &name) < 0)
        return NULL;
    PyObject *way = is_plain(name) ? PyDict_GetItemWithError(self->ways, bare) : NULL;
    if (is_tuple_of(way, WAY_PARTS) && PyTuple_Check(PyTuple_GetItem(way, SLOTS))) {
        *id = PyUnicode_DecodeUTF8(PyBytes_AsString(name), PyBytes_Size(name), NULL);
        if (*id == NULL) {
            PyErr_Clear();
            way = NULL;
        }
    } else
        way = NULL;
    Py_DECREF(bare);
    Py_DECREF(name);
    return way;
}

/* Pass a message on. 1, 0 when it is for the twin, -1 for error. */
static int relay_message(Relay *self, PyObject *peer, const Message *message) {
    const Part *parts = message->parts;
    int delimited = parts[0].size == 0, verb_at = delimited;
    if (message->count < verb_at + 2 || !part_is(&parts[verb_at], self->asked) ||
        parts[verb_at + 1].size > MAX_KEPT_HEADER_BYTES)
        return 0;
    PyObject *header = part_bytes(&parts[verb_at + 1]), *id = NULL;
    if (header == NULL)
        return -1;
    Travelling request = {
        .way = way_of(self, header, &id),
        .envelope = PyTuple_GetItem(peer, delimited ? DELIMITED : BARE),
        .header = header,
        .arrived_ns = monotonic_ns(),
    };
    int result = PyErr_Occurred() ? -1 : 0;
    if (request.way != NULL &&
        (request.slot = free_slot(self, PyTuple_GetItem(request.way, SLOTS))) != NULL) {
        uint64_t timeout_ns = PyLong_AsUnsignedLongLong(PyTuple_GetItem(request.way, TIMEOUT_NS));
        request.deadline_ns = request.arrived_ns + timeout_ns;
        request.id = id;
        request.tensors = tensors_list(parts + verb_at + 2, message->count - verb_at - 2);
        request.number = PyIter_Next(self->numbers);
        result = request.tensors == NULL || request.number == NULL || PyErr_Occurred()
                     ? -1
                     : relay_forward(self, &request);
        Py_XDECREF(request.tensors);
        Py_XDECREF(request.number);
    } else if (PyErr_Occurred())
        result = -1;
    Py_XDECREF(id);
    Py_DECREF(header);
    return result;
}

static Py_ssize_t receive(Relay *self, int fd) {
    Py_ssize_t count;
    int failure;
    Py_BEGIN_ALLOW_THREADS
    do
        count = recv(fd, self->scratch, SCRATCH_BYTES, MSG_DONTWAIT);
    while (count < 0 && errno == EINTR);
    failure = errno;
    Py_END_ALLOW_THREADS
    if (count < 0) /* a reset comes after everything that was sent before it */
        return failure == EAGAIN || failure == EWOULDBLOCK ? -1 : 0;
    return count;
}

/* Read what a client has sent, and pass it on; what of it is for the twin is `found`. */
static int relay_peer(Relay *self, int fd, PyObject *peer) {
    Py_ssize_t count = receive(self, fd);
    if (count < 0)
        return 0;
    if (count == 0) {
        self->found = Py_BuildValue("iy", fd, "");
        return self->found == NULL ? -1 : 0;
    }
    const unsigned char *at = self->scratch, *end = at + count;
    Message message;
    while (at < end && self->posts.count < MAX_POSTS && message_cut(&message, at, (size_t)(end - at))) {
        int result = relay_message(self, peer, &message);
        if (result < 0)
            return -1;
        if (result == 0)
            break;
        at += message.used;
    }
    if (at == end)
        return 0;
    self->found = Py_BuildValue("iy#", fd, (const char *)at, (Py_ssize_t)(end - at));
    return self->found == NULL ? -1 : 0;
}

/* --- from workers to clients ------------------------------------------------------------------ */

/* Write the reply to a client's request. None when it is too much for here. */
static PyObject *reply_written(const Relay *self, PyObject *envelope, const Frame *frame) {
    Part parts[MAX_FRAMES];
    Py_buffer views[MAX_FRAMES];
    int count = 0, held = 0;
    PyObject *frames = PyObject_GetAttr(envelope, self->state->names[ATTR_FRAMES]), *written = NULL;
    if (frames == NULL || !PyList_Check(frames) ||
        PyList_Size(frames) + PyList_Size(frame->tensors) + 2 > MAX_FRAMES) {
        Py_XDECREF(frames);
        if (PyErr_Occurred())
            return NULL;
        Py_RETURN_NONE;
    }
    Py_ssize_t hops = PyList_Size(frames), all = hops + 2 + PyList_Size(frame->tensors);
    for (; count < all; count++) {
        PyObject *part = count < hops        ? PyList_GetItem(frames, count)
                         : count == hops     ? self->answered
                         : count == hops + 1 ? frame->header
                                             : PyList_GetItem(frame->tensors, count - hops - 2);
        if (PyObject_GetBuffer(part, &views[count], PyBUF_SIMPLE) < 0)
            break;
        held++;
        parts[count] = (Part){views[count].buf, (size_t)views[count].len};
    }
    if (count == all)
        written = message_written(parts, count);
    while (held > 0)
        PyBuffer_Release(&views[--held]);
    Py_DECREF(frames);
    return written;
}

/* The entry of the client that an envelope leads to, if nothing waits there. Borrowed. */
static PyObject *peer_of(const Relay *self, PyObject *envelope, int *fd) {
    PyObject *client = PyObject_GetAttr(envelope, self->state->names[ATTR_PEER]);
    int64_t number = -1;
    PyObject *entry = NULL;
    if (client != NULL && heard(client, self->state->names[ATTR_FD], &number) == 0)
        entry = by_number(self->peers, (long)number);
    if (!is_tuple_of(entry, PEER_PARTS) || PyTuple_GetItem(entry, CLIENT) != client)
        entry = NULL;
    Py_XDECREF(client);
    *fd = (int)number;
    return entry;
}

/* Give a reply to the client that waits for it. 1, 0 when it is for the twin. */
static int relay_reply(Relay *self, PyObject *request, const Frame *frame) {
    PyObject *span = PyObject_GetAttr(request, self->state->names[ATTR_SPAN]);
    PyObject *envelope = PyObject_GetAttr(request, self->state->names[ATTR_ENVELOPE]);
    PyObject *written = NULL;
    int fd = -1;
    if (span == Py_None && envelope != NULL && peer_of(self, envelope, &fd) != NULL)
        written = reply_written(self, envelope, frame);
    Py_XDECREF(span);
    Py_XDECREF(envelope);
    if (written == NULL)
        return PyErr_Occurred() ? -1 : 0;
    if (written == Py_None) {
        Py_DECREF(written);
        return 0;
    }
    posts_add(&self->posts, fd, written);
    return 1;
}

/* Take note that a request was answered. */
static int relay_settle(const Relay *self, PyObject *lane, PyObject *request, PyObject *number) {
    int64_t arrived_ns;
    if (heard(request, self->state->names[ATTR_ARRIVED], &arrived_ns) < 0 ||
        PyDict_DelItem(PyTuple_GetItem(lane, OUTSTANDING), number) < 0 ||
        count_up(PyTuple_GetItem(lane, ROUTE), self->state->names[ATTR_ANSWERED]) < 0)
        return -1;
    const Row row = {
        .arrived_ns = arrived_ns, .began_ns = arrived_ns, .ended_ns = (int64_t)monotonic_ns()};
    return tally_add(self->state, PyTuple_GetItem(lane, TALLY), &row);
}

/* Pass an answer on. 1, 0 when it is for the twin. */
static int relay_answer(Relay *self, PyObject *lane, const Frame *frame) {
    if (frame->kind != RESPONSE || !PyDict_Check(PyTuple_GetItem(lane, OUTSTANDING)))
        return 0;
    PyObject *number = PyLong_FromUnsignedLongLong(frame->request_id);
    if (number == NULL)
        return -1;
    PyObject *request = PyDict_GetItemWithError(PyTuple_GetItem(lane, OUTSTANDING), number);
    int result = PyErr_Occurred() ? -1 : 0;
    if (request != NULL) {
        Py_INCREF(request);
        result = relay_reply(self, request, frame);
        if (result > 0 && relay_settle(self, lane, request, number) < 0)
            result = -1;
        Py_DECREF(request);
    }
    Py_DECREF(number);
    return result;
}

/* Read what a worker has sent, and pass it on; what of it is for the twin is `found`. */
static int relay_lane(Relay *self, int fd, PyObject *lane) {
    PyObject *reader = PyTuple_GetItem(lane, READER);
    PyObject *frames = reader_frames(reader, fd, 0, (Look){0});
    if (frames == NULL) {
        self->found = Py_BuildValue("iN", fd, taken_exception());
        return self->found == NULL ? -1 : 0;
    }
    Py_ssize_t count = PyList_Size(frames), n = 0;
    int result = 1, plain = reader_is_plain(reader);
    for (; n < count && self->posts.count < MAX_POSTS; n++)
        if ((result = relay_answer(self, lane, (const Frame *)PyList_GetItem(frames, n))) <= 0)
            break;
    if (result >= 0 && (n < count || !plain)) {
        PyObject *rest = PyList_GetSlice(frames, n, count);
        self->found = rest == NULL ? NULL : Py_BuildValue("iN", fd, rest);
        result = self->found == NULL ? -1 : 0;
    }
    Py_DECREF(frames);
    return result < 0 ? -1 : 0;
}

/* --- turns ------------------------------------------------------------------------------------ */

static PyObject *event_peer(const Relay *self, const struct epoll_event *event) {
    PyObject *peer = event->events == EPOLLIN ? by_number(self->peers, event->data.fd) : NULL;
    return is_tuple_of(peer, PEER_PARTS) ? peer : NULL;
}

static PyObject *event_lane(const Relay *self, const struct epoll_event *event) {
    PyObject *lane = event->events == EPOLLIN ? by_number(self->lanes, event->data.fd) : NULL;
    return is_tuple_of(lane, LANE_PARTS) &&
                   PyObject_TypeCheck(PyTuple_GetItem(lane, READER),
                                      (PyTypeObject *)self->state->reader_type)
               ? lane
               : NULL;
}

static int relay_event(Relay *self, const struct epoll_event *event) {
    PyObject *peer = event_peer(self, event);
    if (peer != NULL)
        return relay_peer(self, event->data.fd, peer);
    PyObject *lane = event_lane(self, event);
    return lane != NULL ? relay_lane(self, event->data.fd, lane) : -1;
}

/* Treat what is ready; all of it is for the twin when one event is. */
static int relay_events(Relay *self, const struct epoll_event *events, int count) {
    int n = 0, usual = 1;
    for (int each = 0; usual && each < count; each++)
        usual = event_peer(self, &events[each]) != NULL || event_lane(self, &events[each]) != NULL;
    for (; usual && n < count && self->found == NULL && self->posts.count < MAX_POSTS; n++)
        if (relay_event(self, &events[n]) < 0)
            return -1;
    for (; n < count; n++) {
        PyObject *event = Py_BuildValue("iI", events[n].data.fd, (unsigned)events[n].events);
        int result = event == NULL ? -1 : PyList_Append(self->ready, event);
        Py_XDECREF(event);
        if (result < 0)
            return -1;
    }
    return posts_deliver(&self->posts, self->unsent);
}

static int relay_run(Relay *self, int epoll_fd, int timeout_ms, long most) {
    struct epoll_event events[MAX_EVENTS];
    do {
        int count;
        Py_BEGIN_ALLOW_THREADS
        count = epoll_wait(epoll_fd, events, MAX_EVENTS, timeout_ms);
        Py_END_ALLOW_THREADS
        if (count <= 0)
            return 0;
        if (relay_events(self, events, count) < 0)
            return -1;
    } while (timeout_ms < 0 && --most > 0 && self->found == NULL && PyList_Size(self->ready) == 0 &&
             PyList_Size(self->unsent) == 0);
    return 0;
}

/* turns(epoll_fd, timeout_ms, most) */
static PyObject *relay_turns(Relay *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "turns takes a descriptor and two numbers");
        return NULL;
    }
    long epoll_fd = PyLong_AsLong(args[0]), timeout_ms = PyLong_AsLong(args[1]);
    long most = PyLong_AsLong(args[2]);
    if (PyErr_Occurred())
        return NULL;
    self->ready = PyList_New(0);
    self->unsent = PyList_New(0);
    PyObject *result = NULL;
    if (self->ready != NULL && self->unsent != NULL &&
        relay_run(self, (int)epoll_fd, (int)timeout_ms, most) == 0)
        result = Py_BuildValue("OOO", self->ready, self->found != NULL ? self->found : Py_None,
                               self->unsent);
    posts_clear(&self->posts); /* after an error */
    Py_CLEAR(self->ready);
    Py_CLEAR(self->unsent);
    Py_CLEAR(self->found);
    return result;
}

static PyMethodDef relay_methods[] = {
    {"turns", (PyCFunction)(void (*)(void))relay_turns, METH_FASTCALL,
     "turns(epoll_fd, timeout_ms, most) -> (what else is ready, (fd, what came there that is for the "
     "twin) or None, what was not taken), after so many turns at most"},
    {NULL},
};

static PyType_Slot relay_slots[] = {
    {Py_tp_doc, "Relay(peers, lanes, ways, numbers, request_type, asked, answered): passes on."},
    {Py_tp_new, relay_new},
    {Py_tp_dealloc, relay_dealloc},
    {Py_tp_traverse, relay_traverse},
    {Py_tp_clear, relay_clear},
    {Py_tp_methods, relay_methods},
    {0, NULL},
};

PyType_Spec relay_spec = {
    .name = "superbrain.transport._loop.Relay",
    .basicsize = sizeof(Relay),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = relay_slots,
};
