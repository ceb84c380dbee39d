/* The execution of the usual request, in one step: make arrays, let the model answer, send.
 *
 * The usual request is like one that was answered before. For any other nothing is done here. Whether
 * it is its turn, and in time, the caller knows. Its twin is the way that the others go, by
 * serve/execution.py: there are the rules that this one has to keep.
 */

#include "loop.h"

#include <time.h>

enum { REQUEST = 2, RESPONSE = 3, FORWARD = 6 };

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

static uint64_t monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
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

/* What a request like this one was answered with: (unpacking, packing, header of the answer). None
 * (NULL without an error) for a request that is not for here; else a new reference. */
static PyObject *express_form(const Express *self, PyObject *forms, const Frame *frame,
                              PyObject *shared_header) {
    if (frame->kind != REQUEST && frame->kind != FORWARD)
        return NULL;
    PyObject *form = PyDict_GetItemWithError(forms, shared_header);
    if (form == NULL || !PyTuple_Check(form) || PyTuple_Size(form) != 3)
        return NULL;
    for (int n = 0; n < 2; n++)
        if (!PyObject_TypeCheck(PyTuple_GetItem(form, n),
                                (PyTypeObject *)self->state->packing_type))
            return NULL;
    Py_INCREF(form);
    return form;
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
    PyObject *header = with_name(PyTuple_GetItem(form, 2), name);
    PyObject *tensors = header == NULL ? NULL : packing_pack(PyTuple_GetItem(form, 1), outputs);
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
    if (count != 7 || !PyObject_TypeCheck(args[0], (PyTypeObject *)self->state->frame_type) ||
        !PyDict_Check(args[4]) || !PyBytes_Check(args[5]) || !PyBytes_Check(args[6])) {
        PyErr_SetString(PyExc_TypeError, "run takes a Frame, three numbers, a dict and two bytes");
        return NULL;
    }
    Frame *frame = (Frame *)args[0];
    long fd = PyLong_AsLong(args[1]);
    unsigned long long lane = PyLong_AsUnsignedLongLong(args[2]);
    if (PyErr_Occurred())
        return NULL;
    PyObject *form = express_form(self, args[4], frame, args[5]);
    if (form == NULL) {
        if (PyErr_Occurred())
            return NULL;
        Py_RETURN_NONE;
    }
    PyObject *result = packing_unpack(PyTuple_GetItem(form, 0), frame->tensors);
    if (result == NULL) {
        PyErr_Clear(); /* the twin will meet the same, and say so */
        result = Py_None;
        Py_INCREF(result);
    } else if (result != Py_None) {
        PyObject *arrays = result;
        result = express_answer(self, (int)fd, lane, args[3], frame, form, args[6], arrays);
        Py_DECREF(arrays);
    }
    Py_DECREF(form);
    return result;
}

static PyMethodDef express_methods[] = {
    {"run", (PyCFunction)(void (*)(void))express_run, METH_FASTCALL,
     "run(frame, fd, lane, now_ns, forms, shared_header, name) -> None when the request is not for here; when the model had "
     "done if it was answered; (frame, when) for an fd below 0; else (failed, outcome, sent, when), and "
     "the answer, of which the peer took so many bytes, is the caller's to send"},
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
