/* The execution of the usual request, in one step: make arrays, let the model answer, send.
 *
 * The usual request is like one that was answered before. For any other nothing is done here. Whether
 * it is its turn, and in time, the caller knows. Its twin is the way that the others go, by
 * serve/execution.py: there are the rules that this one has to keep.
 */

#include "loop.h"

/* The flight page: what is being executed, for who survives this process (transport/flight.py). */
typedef struct {
    uint64_t count, lane, request_id;
} Page;

typedef struct {
    PyObject_HEAD
    Py_buffer page;    /* at least a Page */
    PyObject *figures; /* whose executing_since_ns other threads read */
    PyObject *answer;  /* the model: arrays by name -> arrays by name */
    PyObject *since;   /* the attribute's name */
    PyObject *zero;
    PyObject *header;  /* of the request that is being executed, else None */
    State *state;      /* of the module, which the type keeps */
} Express;

static int express_traverse(Express *self, visitproc visit, void *arg) {
    Py_VISIT((PyObject *)TYPE_OF(self));
    Py_VISIT(self->figures);
    Py_VISIT(self->answer);
    return 0;
}

static int express_clear(Express *self) {
    if (self->page.obj != NULL)
        PyBuffer_Release(&self->page);
    Py_CLEAR(self->figures);
    Py_CLEAR(self->answer);
    Py_CLEAR(self->since);
    Py_CLEAR(self->zero);
    Py_CLEAR(self->header);
    return 0;
}

static void express_dealloc(Express *self) {
    PyTypeObject *type = TYPE_OF(self);
    PyObject_GC_UnTrack(self);
    express_clear(self);
    PyObject_GC_Del(self);
    Py_DECREF((PyObject *)type);
}

static PyObject *express_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs)) {
    PyObject *page, *figures, *answer;
    if (!PyArg_ParseTuple(args, "OOO", &page, &figures, &answer))
        return NULL;
    Express *self = PyObject_GC_New(Express, type);
    if (self == NULL)
        return NULL;
    memset((char *)self + sizeof(PyObject), 0, sizeof(Express) - sizeof(PyObject));
    self->state = PyType_GetModuleState(type);
    Py_INCREF(figures);
    self->figures = figures;
    Py_INCREF(answer);
    self->answer = answer;
    Py_INCREF(Py_None);
    self->header = Py_None;
    self->since = PyUnicode_InternFromString("executing_since_ns");
    self->zero = PyLong_FromLong(0);
    PyObject_GC_Track(self);
    if (self->state == NULL || self->since == NULL || self->zero == NULL ||
        PyObject_GetBuffer(page, &self->page, PyBUF_WRITABLE) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    if (self->page.len < (Py_ssize_t)sizeof(Page) || (uintptr_t)self->page.buf % sizeof(uint64_t)) {
        Py_DECREF(self);
        PyErr_SetString(PyExc_ValueError, "expected an aligned page");
        return NULL;
    }
    return (PyObject *)self;
}

static void express_name(Express *self, PyObject *header) {
    PyObject *before = self->header;
    Py_INCREF(header);
    self->header = header;
    Py_DECREF(before);
}

/* Say what is being executed, and since when; what survives us first what, then that it counts. */
static int express_begin(Express *self, uint64_t lane, const Frame *frame, PyObject *now_ns) {
    volatile Page *page = self->page.buf;
    if (PyObject_SetAttr(self->figures, self->since, now_ns) < 0)
        return -1;
    express_name(self, frame->header);
    page->lane = lane;
    page->request_id = frame->request_id;
    page->count = 1;
    return 0;
}

static int express_end(Express *self) {
    volatile Page *page = self->page.buf;
    page->count = 0;
    express_name(self, Py_None);
    return PyObject_SetAttr(self->figures, self->since, self->zero);
}

/* Take the exception that has been raised; a new reference. */
static PyObject *taken_exception(void) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL && value != NULL)
        PyException_SetTraceback(value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
}

/* How a request like this one was answered: RequestForm.usual, serve/request_form.py. */
enum { UNPACKING, PACKING, HEADER, PLACED, ROOMS, FORM_PARTS };

/* Whether that is what it has to be, and this a request for here. */
static int express_takes(const Express *self, PyObject *form, const Frame *frame) {
    if ((frame->kind != REQUEST && frame->kind != FORWARD) || !PyTuple_Check(form) ||
        PyTuple_Size(form) != FORM_PARTS)
        return 0;
    for (int n = UNPACKING; n <= PACKING; n++)
        if (!PyObject_TypeCheck(PyTuple_GetItem(form, n),
                                (PyTypeObject *)self->state->packing_type))
            return 0;
    return PyBytes_Check(PyTuple_GetItem(form, HEADER));
}

/* The arrays of a request, on its frame's tensors or on shared memory: as `packing_unpack`. */
static PyObject *express_arrays(const Frame *frame, PyObject *form) {
    PyObject *tensors = frame->tensors, *placed = PyTuple_GetItem(form, PLACED);
    if (placed != Py_None) {
        if (PyList_Size(tensors) != 0)
            Py_RETURN_NONE;
        tensors = placed;
    }
    return packing_unpack(PyTuple_GetItem(form, UNPACKING), tensors);
}

/* Copy a tensor to where its asker wants it. 1 when there is too little room, -1 for error. */
static int put(PyObject *tensor, PyObject *room) {
    Py_buffer from, to;
    if (PyObject_GetBuffer(tensor, &from, PyBUF_SIMPLE) < 0)
        return -1;
    int result = PyObject_GetBuffer(room, &to, PyBUF_WRITABLE);
    if (result == 0) {
        result = from.len > to.len;
        if (result == 0)
            memcpy(to.buf, from.buf, (size_t)from.len);
        PyBuffer_Release(&to);
    }
    PyBuffer_Release(&from);
    return result;
}

/* Copy the tensors that have a room into it; give the others. None when one does not fit. */
static PyObject *express_put(PyObject *tensors, PyObject *rooms) {
    if (PyTuple_Size(rooms) != PyList_Size(tensors))
        Py_RETURN_NONE;
    PyObject *others = PyList_New(0);
    if (others == NULL)
        return NULL;
    for (Py_ssize_t n = 0; n < PyTuple_Size(rooms); n++) {
        PyObject *tensor = PyList_GetItem(tensors, n), *room = PyTuple_GetItem(rooms, n);
        int result = room == Py_None ? PyList_Append(others, tensor) : put(tensor, room);
        if (result == 0)
            continue;
        Py_DECREF(others);
        if (result < 0)
            return NULL;
        Py_RETURN_NONE;
    }
    return others;
}

/* The tensors of the answer's frame: as `packing_pack`, without those in shared memory. */
static PyObject *express_tensors(PyObject *form, PyObject *outputs) {
    PyObject *tensors = packing_pack(PyTuple_GetItem(form, PACKING), outputs);
    PyObject *rooms = PyTuple_GetItem(form, ROOMS);
    if (tensors == NULL || tensors == Py_None || rooms == Py_None)
        return tensors;
    PyObject *others = express_put(tensors, rooms);
    Py_DECREF(tensors);
    return others;
}

/* Give the header of an answer with the id in its place, which is empty and comes last: as
 * wire/naming.py. None when it does not end so. A new reference. */
static PyObject *with_name(PyObject *header, PyObject *name) {
    static const char end[] = "\"id\":\"\"}";
    Py_ssize_t size = PyBytes_Size(header), more = PyBytes_Size(name), cut = 2;
    if (size < 0 || more < 0)
        return NULL;
    Py_ssize_t head = size - (Py_ssize_t)strlen(end);
    if (more > 0 && (head < 0 || memcmp(PyBytes_AsString(header) + head, end, strlen(end)) != 0))
        header = Py_None;
    if (more == 0 || header == Py_None) {
        Py_INCREF(header);
        return header;
    }
    PyObject *result = PyBytes_FromStringAndSize(NULL, size + more);
    if (result != NULL) {
        char *to = PyBytes_AsString(result);
        memcpy(to, PyBytes_AsString(header), (size_t)(size - cut));
        memcpy(to + size - cut, PyBytes_AsString(name), (size_t)more);
        memcpy(to + size - cut + more, "\"}", (size_t)cut);
    }
    return result;
}

/* Send what the model has given, or with an `fd` below 0 write it. SENT_ALL, and `written` is the
 * frame in the second case; 0 when it is not like the last answer; else as `frame_send`. */
static Py_ssize_t express_send(int fd, const Frame *frame, PyObject *form, PyObject *name,
                               PyObject *outputs, PyObject **written) {
    Prefix prefix = {.kind = RESPONSE, .request_id = frame->request_id};
    PyObject *header = with_name(PyTuple_GetItem(form, HEADER), name);
    PyObject *tensors = header == NULL ? NULL : express_tensors(form, outputs);
    Py_ssize_t sent = tensors == NULL ? SENT_ERROR : 0;
    if (tensors != NULL && tensors != Py_None && header != Py_None) {
        if (fd >= 0)
            sent = frame_send(fd, &prefix, header, tensors);
        else if ((*written = frame_encode(&prefix, header, tensors)) == NULL)
            sent = SENT_ERROR;
        else if (*written != Py_None)
            sent = SENT_ALL;
    }
    Py_XDECREF(tensors);
    Py_XDECREF(header);
    return sent;
}

/* Answer one request with what was made of its tensors. */
static PyObject *express_answer(Express *self, int fd, uint64_t lane, PyObject *now_ns, Frame *frame,
                                PyObject *form, PyObject *name, PyObject *arrays) {
    if (express_begin(self, lane, frame, now_ns) < 0)
        return NULL;
    PyObject *outcome = PyObject_CallFunctionObjArgs(self->answer, arrays, NULL);
    int failed = outcome == NULL;
    if (failed)
        outcome = taken_exception();
    if (express_end(self) < 0 || outcome == NULL) {
        Py_XDECREF(outcome);
        return NULL;
    }
    unsigned long long ended_ns = monotonic_ns();
    PyObject *written = NULL;
    Py_ssize_t sent = failed ? 0 : express_send(fd, frame, form, name, outcome, &written);
    if (sent == SENT_ALL) {
        Py_DECREF(outcome);
        if (written != NULL)
            return Py_BuildValue("NK", written, ended_ns);
        return PyLong_FromUnsignedLongLong(ended_ns);
    }
    Py_XDECREF(written);
    if (sent == SENT_ERROR) { /* memory is out: this request's own error, as in the twin */
        PyErr_Clear();
        sent = 0;
    }
    return Py_BuildValue("ONnK", failed ? Py_True : Py_False, outcome, sent, ended_ns);
}

static PyObject *express_run(Express *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 6 || !PyObject_TypeCheck(args[0], (PyTypeObject *)self->state->frame_type) ||
        !PyBytes_Check(args[5])) {
        PyErr_SetString(PyExc_TypeError, "run takes a Frame, three numbers, a form and bytes");
        return NULL;
    }
    Frame *frame = (Frame *)args[0];
    long fd = PyLong_AsLong(args[1]);
    unsigned long long lane = PyLong_AsUnsignedLongLong(args[2]);
    if (PyErr_Occurred())
        return NULL;
    PyObject *form = args[4];
    if (!express_takes(self, form, frame))
        Py_RETURN_NONE;
    PyObject *result = express_arrays(frame, form);
    if (result == NULL) {
        PyErr_Clear(); /* the twin will meet the same, and say so */
        result = Py_None;
        Py_INCREF(result);
    } else if (result != Py_None) {
        PyObject *arrays = result;
        result = express_answer(self, (int)fd, lane, args[3], frame, form, args[5], arrays);
        Py_DECREF(arrays);
    }
    return result;
}

/* The only frame of several that is a usual request of a client's own lane, and in time; or NULL. Its
 * form is borrowed. */
static Frame *express_lone(const Express *self, PyObject *frames, PyObject *forms,
                           PyObject *shared_forms, uint64_t now_ns, PyObject **form) {
    if (PyList_Size(frames) != 1)
        return NULL;
    Frame *frame = (Frame *)PyList_GetItem(frames, 0);
    if (frame->kind != REQUEST || (frame->deadline_ns != 0 && frame->deadline_ns <= now_ns))
        return NULL;
    *form = PyDict_GetItemWithError(forms, frame->header);
    if (*form == NULL && !PyErr_Occurred())
        *form = PyDict_GetItemWithError(shared_forms, frame->header);
    return *form != NULL && express_takes(self, *form, frame) ? frame : NULL;
}

/* Execute a frame of a list that has no other. None when it is not for here. */
static PyObject *express_lone_answer(Express *self, int fd, uint64_t lane, uint64_t now_ns,
                                     Frame *frame, PyObject *form) {
    PyObject *arrays = express_arrays(frame, form);
    if (arrays == NULL)
        PyErr_Clear(); /* the twin will meet the same, and say so */
    if (arrays == NULL || arrays == Py_None)
        return arrays;
    PyObject *now = PyLong_FromUnsignedLongLong(now_ns);
    PyObject *name = PyBytes_FromStringAndSize(NULL, 0);
    PyObject *done = NULL;
    if (now != NULL && name != NULL)
        done = express_answer(self, fd, lane, now, frame, form, name, arrays);
    Py_XDECREF(now);
    Py_XDECREF(name);
    Py_DECREF(arrays);
    return done;
}

static PyObject *express_turn(Express *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 7 || !PyObject_TypeCheck(args[0], (PyTypeObject *)self->state->reader_type) ||
        !PyDict_Check(args[4]) || !PyDict_Check(args[5])) {
        PyErr_SetString(PyExc_TypeError, "turn takes a Reader, three numbers and two dicts");
        return NULL;
    }
    long fd = PyLong_AsLong(args[1]);
    int takes_descriptors = PyObject_IsTrue(args[2]);
    unsigned long long lane = PyLong_AsUnsignedLongLong(args[3]);
    int answers = PyObject_IsTrue(args[6]);
    if (PyErr_Occurred())
        return NULL;
    PyObject *frames = reader_frames(args[0], (int)fd, takes_descriptors, (Look){0});
    if (frames == NULL)
        return NULL;
    uint64_t now_ns = monotonic_ns();
    PyObject *form = NULL, *done = NULL;
    Frame *frame = express_lone(self, frames, args[4], args[5], now_ns, &form);
    if (frame != NULL) {
        Py_INCREF(form); /* whoever executes may forget it */
        done = express_lone_answer(self, answers ? (int)fd : -1, lane, now_ns, frame, form);
        Py_DECREF(form);
    }
    PyObject *result = NULL;
    if (done != NULL && done != Py_None)
        result = Py_BuildValue("OKO", frame, (unsigned long long)now_ns, done);
    else if (!PyErr_Occurred()) {
        Py_INCREF(frames);
        result = frames;
    }
    Py_XDECREF(done);
    Py_DECREF(frames);
    return result;
}

static PyMethodDef express_methods[] = {
    {"turn", (PyCFunction)(void (*)(void))express_turn, METH_FASTCALL,
     "turn(reader, fd, takes_descriptors, lane, forms, shared_forms, answers) -> the frames that "
     "came; but of one that was executed at once (frame, when it came, as from run), where an answer "
     "is sent only if answers is true"},
    {"run", (PyCFunction)(void (*)(void))express_run, METH_FASTCALL,
     "run(frame, fd, lane, now_ns, form, name) -> None when the request is not for here; when the "
     "model had done if it was answered; (frame, when) for an fd below 0; else (failed, outcome, "
     "sent, when), and the answer, of which the peer took so many bytes, is the caller's to send"},
    {NULL},
};

static PyMemberDef express_members[] = {
    {"header", T_OBJECT, offsetof(Express, header), READONLY, NULL},
    {NULL},
};

static PyType_Slot express_slots[] = {
    {Py_tp_doc, "Express(page, figures, answer): a worker's turn for the usual request."},
    {Py_tp_new, express_new},
    {Py_tp_dealloc, express_dealloc},
    {Py_tp_traverse, express_traverse},
    {Py_tp_clear, express_clear},
    {Py_tp_methods, express_methods},
    {Py_tp_members, express_members},
    {0, NULL},
};

PyType_Spec express_spec = {
    .name = "superbrain.transport._loop.Express",
    .basicsize = sizeof(Express),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = express_slots,
};
