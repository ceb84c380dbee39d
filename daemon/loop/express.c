/* The execution of the usual request, in one step: make arrays, let the model answer, send, count.
 *
 * The usual request is like one that was answered before. For any other nothing is done here. Whether
 * it is its turn, and in time, the caller knows. Its twin is the way that the others go, by
 * serve/execution.py and serve/figures.py: there are the rules that this one has to keep.
 */

#include "express.h"

/* The flight page: what is being executed, for who survives this process (transport/flight.py). */
typedef struct {
    uint64_t count, lane, request_id;
} Page;

enum { DIRECT = 1, ALONE = 2 }; /* flags of a row, as serve/tally.py has them */

static int express_traverse(Express *self, visitproc visit, void *arg) {
    Py_VISIT((PyObject *)TYPE_OF(self));
    Py_VISIT(self->figures);
    Py_VISIT(self->tally);
    Py_VISIT(self->clock);
    Py_VISIT(self->answer);
    return 0;
}

static int express_clear(Express *self) {
    if (self->page.obj != NULL)
        PyBuffer_Release(&self->page);
    Py_CLEAR(self->figures);
    Py_CLEAR(self->tally);
    Py_CLEAR(self->clock);
    Py_CLEAR(self->answer);
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

/* Make what is not given; -1 for error. */
static int express_init(Express *self, PyObject *page) {
    self->zero = PyLong_FromLong(0);
    self->tally = PyObject_GetAttrString(self->figures, "tally");
    if (self->zero == NULL || self->tally == NULL)
        return -1;
    if (PyObject_GetBuffer(page, &self->page, PyBUF_WRITABLE) < 0)
        return -1;
    if (self->page.len < (Py_ssize_t)sizeof(Page) || (uintptr_t)self->page.buf % sizeof(uint64_t)) {
        PyErr_SetString(PyExc_ValueError, "expected an aligned page");
        return -1;
    }
    return 0;
}

static PyObject *express_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs)) {
    PyObject *page, *figures, *clock, *answer;
    if (!PyArg_ParseTuple(args, "OOOO", &page, &figures, &clock, &answer))
        return NULL;
    Express *self = PyObject_GC_New(Express, type);
    if (self == NULL)
        return NULL;
    memset((char *)self + sizeof(PyObject), 0, sizeof(Express) - sizeof(PyObject));
    self->state = PyType_GetModuleState(type);
    Py_INCREF(figures);
    self->figures = figures;
    Py_INCREF(clock);
    self->clock = clock;
    Py_INCREF(answer);
    self->answer = answer;
    Py_INCREF(Py_None);
    self->header = Py_None;
    PyObject_GC_Track(self);
    if (self->state == NULL || express_init(self, page) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

/* --- what is told of an execution ------------------------------------------------------------- */

static void express_name(Express *self, PyObject *header) {
    PyObject *before = self->header;
    Py_INCREF(header);
    self->header = header;
    Py_DECREF(before);
}

/* Say what is being executed, and since when; what survives us first what, then that it counts. */
static int express_begin(Express *self, const Request *request) {
    volatile Page *page = self->page.buf;
    if (tell(self->figures, self->state->names[ATTR_SINCE], request->began_ns) < 0)
        return -1;
    express_name(self, request->frame->header);
    page->lane = request->lane;
    page->request_id = request->frame->request_id;
    page->count = 1;
    return 0;
}

static int express_end(Express *self) {
    volatile Page *page = self->page.buf;
    page->count = 0;
    express_name(self, Py_None);
    return PyObject_SetAttr(self->figures, self->state->names[ATTR_SINCE], self->zero);
}

/* Count a request that was answered. */
static int express_count(const Express *self, const Request *request, int64_t first_ns,
                         int64_t engine_ns) {
    const Row row = {
        .arrived_ns = (int64_t)request->arrived_ns,
        .began_ns = (int64_t)request->began_ns,
        .first_ns = first_ns,
        .engine_ns = engine_ns,
        .ended_ns = (int64_t)self->ended_ns,
        .flags = ALONE | (request->frame->kind == REQUEST ? DIRECT : 0),
    };
    return tally_add(self->state, self->tally, &row);
}

/* --- the request ------------------------------------------------------------------------------ */

/* How a request like this one was answered: RequestForm.usual, serve/request_form.py. */
enum { UNPACKING, PACKING, HEADER, PLACED, ROOMS, BOUND, FORM_PARTS };

/* Memory that is bound to the graph, if it is the model: engines/port.py's Bound, as `usual` has it. */
enum { ACQUIRE, RELEASE, RUN, INPUTS, OUTPUTS, COPIES, BOUND_PARTS };

static int is_bound(PyObject *bound) {
    return PyTuple_Check(bound) && PyTuple_Size(bound) == BOUND_PARTS &&
           PyTuple_Check(PyTuple_GetItem(bound, INPUTS)) &&
           PyTuple_Check(PyTuple_GetItem(bound, OUTPUTS));
}

/* Whether that is what it has to be, and this a request for here. */
int express_takes(const Express *self, PyObject *form, const Frame *frame) {
    if ((frame->kind != REQUEST && frame->kind != FORWARD) || !PyTuple_Check(form) ||
        PyTuple_Size(form) != FORM_PARTS)
        return 0;
    for (int n = UNPACKING; n <= PACKING; n++)
        if (!PyObject_TypeCheck(PyTuple_GetItem(form, n),
                                (PyTypeObject *)self->state->packing_type))
            return 0;
    PyObject *rooms = PyTuple_GetItem(form, ROOMS), *bound = PyTuple_GetItem(form, BOUND);
    return PyBytes_Check(PyTuple_GetItem(form, HEADER)) &&
           (rooms == Py_None || PyTuple_Check(rooms)) && (bound == Py_None || is_bound(bound));
}

/* The bytes of its tensors: those of its frame, or where they lie in shared memory. None when it has
 * both. Borrowed. */
static PyObject *tensors_of(const Request *request) {
    PyObject *placed = PyTuple_GetItem(request->form, PLACED);
    if (placed == Py_None)
        return request->frame->tensors;
    return PyList_Size(request->frame->tensors) == 0 ? placed : Py_None;
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
    if (PyTuple_Size(rooms) != PySequence_Size(tensors))
        Py_RETURN_NONE;
    PyObject *others = PyList_New(0);
    if (others == NULL)
        return NULL;
    for (Py_ssize_t n = 0; n < PyTuple_Size(rooms); n++) {
        PyObject *tensor = PySequence_GetItem(tensors, n), *room = PyTuple_GetItem(rooms, n);
        int result = tensor == NULL   ? -1
                     : room == Py_None ? PyList_Append(others, tensor)
                                       : put(tensor, room);
        Py_XDECREF(tensor);
        if (result == 0)
            continue;
        Py_DECREF(others);
        if (result < 0)
            return NULL;
        Py_RETURN_NONE;
    }
    return others;
}

/* What of the tensors of an answer goes into its frame, and not into shared memory. A new reference. */
static PyObject *express_tensors(PyObject *form, PyObject *tensors) {
    PyObject *rooms = PyTuple_GetItem(form, ROOMS);
    if (rooms != Py_None && tensors != Py_None)
        return express_put(tensors, rooms);
    Py_INCREF(tensors);
    return tensors;
}

/* Send an answer, or with an `fd` below 0 write it. `how` stays LEFT when it is not like the last
 * answer, or the peer does not take all of it. */
static void express_send(int fd, const Request *request, PyObject *tensors, Done *done) {
    Prefix prefix = {.kind = RESPONSE, .request_id = request->frame->request_id};
    PyObject *header = header_with_id(PyTuple_GetItem(request->form, HEADER), request->name);
    PyObject *sent = header == NULL ? NULL : express_tensors(request->form, tensors);
    done->sent = sent == NULL ? SENT_ERROR : 0;
    if (sent != NULL && sent != Py_None && header != Py_None) {
        if (fd >= 0)
            done->sent = frame_send(fd, &prefix, header, sent);
        else if ((done->written = frame_encode(&prefix, header, sent)) == NULL)
            done->sent = SENT_ERROR;
        else if (done->written != Py_None)
            done->how = WRITTEN;
        else
            Py_CLEAR(done->written);
    }
    Py_XDECREF(sent);
    Py_XDECREF(header);
    if (done->sent == SENT_ALL)
        done->how = SENT;
    if (done->sent == SENT_ERROR) { /* memory is out: this request's own error, as in the twin */
        PyErr_Clear();
        done->sent = 0;
    }
}

static void express_ended(Express *self, const Request *request) {
    self->ended_ns = monotonic_ns();
    self->took_ns = self->ended_ns - request->began_ns;
}

/* Answer by the model: arrays in, arrays out. */
static int express_by_arrays(Express *self, int fd, const Request *request, Done *done) {
    PyObject *tensors = tensors_of(request);
    PyObject *arrays =
        tensors == Py_None ? NULL : packing_unpack(PyTuple_GetItem(request->form, UNPACKING), tensors);
    if (arrays == NULL || arrays == Py_None) {
        Py_XDECREF(arrays);
        PyErr_Clear(); /* the twin will meet the same, and say so */
        return 0;
    }
    PyObject *outcome = NULL;
    if (tell(self->clock, self->state->names[ATTR_BEGAN], request->began_ns) == 0 &&
        PyObject_SetAttr(self->clock, self->state->names[ATTR_FIRST], self->zero) == 0 &&
        PyObject_SetAttr(self->clock, self->state->names[ATTR_ENGINE], self->zero) == 0 &&
        express_begin(self, request) == 0) {
        outcome = PyObject_CallFunctionObjArgs(self->answer, arrays, NULL);
        done->failed = outcome == NULL;
        if (done->failed)
            outcome = taken_exception();
        if (express_end(self) < 0)
            Py_CLEAR(outcome);
    }
    Py_DECREF(arrays);
    if (outcome == NULL)
        return -1;
    express_ended(self, request);
    done->how = LEFT;
    if (!done->failed) {
        PyObject *packed = packing_pack(PyTuple_GetItem(request->form, PACKING), outcome);
        if (packed != NULL)
            express_send(fd, request, packed, done);
        else
            PyErr_Clear();
        Py_XDECREF(packed);
    }
    if (done->how == LEFT) {
        done->outcome = outcome;
        return 0;
    }
    Py_DECREF(outcome);
    int64_t first_ns, engine_ns;
    if (heard(self->clock, self->state->names[ATTR_FIRST], &first_ns) < 0 ||
        heard(self->clock, self->state->names[ATTR_ENGINE], &engine_ns) < 0)
        return -1;
    return express_count(self, request, first_ns, engine_ns);
}

/* Copy the tensors of a request to where the graph reads them. 1 when one does not fit. */
static int fill(PyObject *inputs, PyObject *tensors) {
    if (!PyList_Check(tensors) || PyList_Size(tensors) != PyTuple_Size(inputs))
        return 1;
    int result = 0;
    for (Py_ssize_t n = 0; result == 0 && n < PyTuple_Size(inputs); n++) {
        Py_buffer from, to;
        if (PyObject_GetBuffer(PyList_GetItem(tensors, n), &from, PyBUF_SIMPLE) < 0)
            return -1;
        result = PyObject_GetBuffer(PyTuple_GetItem(inputs, n), &to, PyBUF_WRITABLE);
        if (result == 0) {
            result = from.len != to.len;
            if (result == 0)
                memcpy(to.buf, from.buf, (size_t)from.len);
            PyBuffer_Release(&to);
        }
        PyBuffer_Release(&from);
    }
    return result;
}

/* Run the graph on the memory that is bound to it. NOT_HERE when it raises: the twin says what. */
static int express_run_bound(Express *self, int fd, const Request *request, PyObject *bound,
                             Done *done) {
    uint64_t first_ns, engine_ns;
    if (express_begin(self, request) < 0)
        return -1;
    first_ns = monotonic_ns();
    PyObject *ran = PyObject_CallNoArgs(PyTuple_GetItem(bound, RUN));
    engine_ns = monotonic_ns() - first_ns;
    PyObject *raised = ran == NULL ? taken_exception() : NULL;
    Py_XDECREF(raised);
    Py_XDECREF(ran);
    if (express_end(self) < 0)
        return -1;
    if (ran == NULL)
        return 0;
    express_ended(self, request);
    done->how = LEFT;
    express_send(fd, request, PyTuple_GetItem(bound, OUTPUTS), done);
    if (done->how != LEFT)
        return express_count(self, request, (int64_t)first_ns, (int64_t)engine_ns);
    if (tell(self->clock, self->state->names[ATTR_BEGAN], request->began_ns) < 0 ||
        tell(self->clock, self->state->names[ATTR_FIRST], first_ns) < 0 ||
        tell(self->clock, self->state->names[ATTR_ENGINE], engine_ns) < 0)
        return -1;
    done->outcome = PyObject_CallNoArgs(PyTuple_GetItem(bound, COPIES));
    return done->outcome == NULL ? -1 : 0;
}

/* Answer by the graph itself. NOT_HERE where somebody else has its turn on that memory. */
static int express_by_memory(Express *self, int fd, const Request *request, PyObject *bound,
                             Done *done) {
    PyObject *taken = PyObject_CallFunctionObjArgs(PyTuple_GetItem(bound, ACQUIRE), Py_False, NULL);
    if (taken == NULL)
        return -1;
    int mine = taken == Py_True;
    Py_DECREF(taken);
    if (!mine)
        return 0;
    int result = fill(PyTuple_GetItem(bound, INPUTS), tensors_of(request));
    if (result < 0)
        PyErr_Clear(); /* the twin will meet the same, and say so */
    result = result == 0 ? express_run_bound(self, fd, request, bound, done) : 0;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *released = PyObject_CallNoArgs(PyTuple_GetItem(bound, RELEASE));
    if (released == NULL)
        result = -1;
    else
        PyErr_Restore(type, value, traceback);
    Py_XDECREF(released);
    return result;
}

/* Answer one request that `express_takes`, and count it. -1 for an error that is not its own. */
int express_execute(Express *self, int fd, const Request *request, Done *done) {
    memset(done, 0, sizeof(*done));
    PyObject *form = request->form, *bound = PyTuple_GetItem(form, BOUND);
    Py_INCREF(form); /* whoever executes may forget it */
    int result = bound != Py_None ? express_by_memory(self, fd, request, bound, done) : 0;
    if (result == 0 && done->how == NOT_HERE)
        result = express_by_arrays(self, fd, request, done);
    Py_DECREF(form);
    if (result < 0) {
        Py_CLEAR(done->written);
        Py_CLEAR(done->outcome);
    }
    return result;
}

/* What is left to the twin: (failed, outcome, sent, ended_ns). Takes the outcome. */
PyObject *express_left(Done *done, unsigned long long ended_ns) {
    PyObject *outcome = done->outcome;
    done->outcome = NULL;
    return Py_BuildValue("ONnK", done->failed ? Py_True : Py_False, outcome, done->sent, ended_ns);
}

static PyObject *express_run(Express *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 7 || !PyObject_TypeCheck(args[0], (PyTypeObject *)self->state->frame_type) ||
        !PyBytes_Check(args[6])) {
        PyErr_SetString(PyExc_TypeError, "run takes a Frame, four numbers, a form and bytes");
        return NULL;
    }
    long fd = PyLong_AsLong(args[1]);
    Request request = {
        .frame = (Frame *)args[0],
        .lane = PyLong_AsUnsignedLongLong(args[2]),
        .arrived_ns = PyLong_AsUnsignedLongLong(args[3]),
        .began_ns = PyLong_AsUnsignedLongLong(args[4]),
        .form = args[5],
        .name = args[6],
    };
    if (PyErr_Occurred())
        return NULL;
    Done done = {.how = NOT_HERE};
    if (express_takes(self, request.form, request.frame) &&
        express_execute(self, (int)fd, &request, &done) < 0)
        return NULL;
    if (done.how == SENT)
        return PyLong_FromUnsignedLongLong(self->ended_ns);
    if (done.how == WRITTEN)
        return Py_BuildValue("NK", done.written, self->ended_ns);
    if (done.how == LEFT)
        return express_left(&done, self->ended_ns);
    Py_RETURN_NONE;
}

static PyMethodDef express_methods[] = {
    {"spell", (PyCFunction)(void (*)(void))express_spell, METH_FASTCALL, SPELL_DOC},
    {"run", (PyCFunction)(void (*)(void))express_run, METH_FASTCALL,
     "run(frame, fd, lane, arrived_ns, now_ns, form, name) -> None when the request is not for here; "
     "when the model had done if it was answered and counted; (frame, when) for an fd below 0; else "
     "(failed, outcome, sent, when), and the answer, of which the peer took so many bytes, is the "
     "caller's to send and to count"},
    {NULL},
};

static PyMemberDef express_members[] = {
    {"header", T_OBJECT, offsetof(Express, header), READONLY, NULL},
    {"took_ns", T_ULONGLONG, offsetof(Express, took_ns), READONLY, NULL},
    {"ended_ns", T_ULONGLONG, offsetof(Express, ended_ns), READONLY, NULL},
    {NULL},
};

static PyType_Slot express_slots[] = {
    {Py_tp_doc, "Express(page, figures, clock, answer): a worker's turn for the usual request."},
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
