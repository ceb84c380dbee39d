/* A client's next request that is like its last: from the caller's arrays to its result, in one step.
 *
 * A shortcut is made when a request went by `ask`, and is good until anything else is done with the
 * connection, which says so. Whatever it does not finish, `go_on` does, which is called under the same
 * lock. Its twin is the way that all others go, by client/blocking.py.
 */

#include "loop.h"

#include <pythread.h>
#include <sys/socket.h>
#include <unistd.h>

/* What it is made of, in this order. */
enum {
    READER,
    PACKING, /* of the inputs, or where they are in shared memory None */
    TENSORS, /* which then are these, else None */
    HEADER,  /* of the request */
    ANSWERS, /* as for `ask` */
    NUMBERS, /* gives the next request's */
    NAME,    /* of all; with the number it is the id */
    LAST, /* what it is like, for `go_on` */
    ACQUIRE,
    RELEASE, /* the lock */
    RESULT,  /* the type of what is given */
    GO_ON,   /* connection, LAST, inputs, number, deadline, what `ask` gives or raised -> likewise */
    OBJECTS
};

enum {
    SLEEP_MS = 2, /* others who want the connection wait so long */
    SLEEPS_WHEN_CROWDED = 16,
};

typedef struct {
    PyObject_HEAD
    PyObject *objects[OBJECTS];
    State *state; /* of the module, which the type keeps */
    int fd;
    pid_t process;
    unsigned long thread;
    Look look;
    unsigned sleeps; /* so many do not look, for somebody else wanted the processor */
    char good;       /* nothing else has been done with the connection */
    char long_ago;   /* the last answer took longer than one looks */
} Shortcut;

static int shortcut_traverse(Shortcut *self, visitproc visit, void *arg) {
    Py_VISIT((PyObject *)TYPE_OF(self));
    for (int n = 0; n < OBJECTS; n++)
        Py_VISIT(self->objects[n]);
    return 0;
}

static int shortcut_clear(Shortcut *self) {
    for (int n = 0; n < OBJECTS; n++)
        Py_CLEAR(self->objects[n]);
    return 0;
}

static void shortcut_dealloc(Shortcut *self) {
    PyTypeObject *type = TYPE_OF(self);
    PyObject_GC_UnTrack(self);
    shortcut_clear(self);
    PyObject_GC_Del(self);
    Py_DECREF((PyObject *)type);
}

static int shortcut_init(Shortcut *self, PyObject *objects) {
    if (PyTuple_Size(objects) != OBJECTS) {
        PyErr_Format(PyExc_TypeError, "expected %d objects", OBJECTS);
        return -1;
    }
    for (int n = 0; n < OBJECTS; n++) {
        self->objects[n] = PyTuple_GetItem(objects, n);
        Py_INCREF(self->objects[n]);
    }
    if (!PyObject_TypeCheck(self->objects[READER], (PyTypeObject *)self->state->reader_type) ||
        !(self->objects[TENSORS] == Py_None
              ? PyObject_TypeCheck(self->objects[PACKING],
                                   (PyTypeObject *)self->state->packing_type)
              : PyList_Check(self->objects[TENSORS])) ||
        !PyBytes_Check(self->objects[HEADER]) || !PyDict_Check(self->objects[ANSWERS]) ||
        !PyIter_Check(self->objects[NUMBERS]) || !PyUnicode_Check(self->objects[NAME]) ||
        !PyType_Check(self->objects[RESULT])) {
        PyErr_SetString(PyExc_TypeError, "expected what a shortcut is made of");
        return -1;
    }
    return 0;
}

/* Shortcut(objects, fd, moment_ns, crowded_ns) */
static PyObject *shortcut_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs)) {
    PyObject *objects;
    int fd;
    unsigned long long moment_ns, crowded_ns;
    if (!PyArg_ParseTuple(args, "O!iKK", &PyTuple_Type, &objects, &fd, &moment_ns, &crowded_ns))
        return NULL;
    Shortcut *self = PyObject_GC_New(Shortcut, type);
    if (self == NULL)
        return NULL;
    memset((char *)self + sizeof(PyObject), 0, sizeof(Shortcut) - sizeof(PyObject));
    self->state = PyType_GetModuleState(type);
    self->fd = fd;
    self->look = (Look){moment_ns, crowded_ns};
    self->process = getpid();
    self->thread = PyThread_get_thread_ident();
    self->good = 1;
    PyObject_GC_Track(self);
    if (self->state == NULL || shortcut_init(self, objects) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int shortcut_is_good(const Shortcut *self) {
    return self->good && self->process == getpid() && self->thread == PyThread_get_thread_ident();
}

/* Make the result of arrays and the form of their answer. Takes the arrays. */
static PyObject *shortcut_result(const Shortcut *self, PyObject *arrays, PyObject *form,
                                 unsigned long long number) {
    PyObject *const *names = self->state->names;
    const Attribute attributes[] = {
        {names[ATTR_MODEL_NAME], PyObject_GetAttr(form, names[ATTR_MODEL_NAME])},
        {names[ATTR_MODEL_VERSION], PyObject_GetAttr(form, names[ATTR_MODEL_VERSION])},
        {names[ATTR_ID], PyUnicode_FromFormat("%U-%llu", self->objects[NAME], number)},
        {names[ATTR_OUTPUTS], arrays},
    };
    return made_of((PyTypeObject *)self->objects[RESULT], attributes, 4);
}

/* Take what was raised for whoever goes on, if it is that the lane broke its rules. */
static PyObject *shortcut_raised(const Shortcut *self) {
    if (!PyErr_ExceptionMatches(reader_error(self->objects[READER])))
        return NULL;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
}

/* When the answer is not wanted any more: seconds as `time.monotonic` counts them. */
static double deadline_s(double timeout_s) { return (double)monotonic_ns() / 1e9 + timeout_s; }

static uint64_t deadline_ns(double deadline) {
    return deadline * 1e9 < 9.2e18 ? (uint64_t)(deadline * 1e9) : 0; /* as client/lane.py */
}

/* Send a request, and look or sleep until its answer comes: as transport/brief_wait.py waits. */
static PyObject *shortcut_exchange(Shortcut *self, const Prefix *prefix, PyObject *tensors,
                                   double timeout_s) {
    PyObject *const *objects = self->objects;
    int looks = !self->long_ago && self->sleeps == 0;
    uint64_t began = monotonic_ns();
    PyObject *done = ask_exchange(self->state, objects[READER], self->fd, prefix, objects[HEADER],
                                  tensors, objects[ANSWERS], looks ? self->look : (Look){0},
                                  timeout_s * 1000 < SLEEP_MS ? 0 : SLEEP_MS);
    if (looks && reader_is_crowded(objects[READER]))
        self->sleeps = SLEEPS_WHEN_CROWDED;
    else if (self->sleeps > 0)
        self->sleeps--;
    self->long_ago = monotonic_ns() - began > self->look.moment_ns;
    return done;
}

/* Let whoever goes on do so. A signal may be heeded before that has taken note of anything: then what
 * was sent in part ends the lane, for nothing may be sent in its middle. */
static PyObject *shortcut_go_on(const Shortcut *self, PyObject *connection, PyObject *inputs,
                                PyObject *number, double deadline, PyObject *done) {
    PyObject *const *objects = self->objects;
    PyObject *begun = PyObject_CallFunction(objects[GO_ON], "OOOOdO", connection, objects[LAST],
                                            inputs, number, deadline, done);
    if (begun == NULL && PyTuple_Check(done) && PyTuple_GetItem(done, 1) != Py_None)
        (void)shutdown(self->fd, SHUT_RDWR);
    return begun;
}

/* Ask, under the lock. None where the inputs are not like the last. */
static PyObject *shortcut_ask_now(Shortcut *self, PyObject *connection, PyObject *inputs,
                                  double timeout_s) {
    PyObject *const *objects = self->objects;
    PyObject *tensors = objects[TENSORS];
    if (tensors != Py_None)
        Py_INCREF(tensors);
    else
        tensors = packing_pack(objects[PACKING], inputs);
    if (tensors == NULL || tensors == Py_None)
        return tensors;
    PyObject *next = PyIter_Next(objects[NUMBERS]), *done = NULL;
    double deadline = deadline_s(timeout_s);
    Prefix prefix = {.kind = REQUEST, .deadline_ns = deadline_ns(deadline)};
    if (next != NULL)
        prefix.request_id = PyLong_AsUnsignedLongLong(next);
    if (next != NULL && !PyErr_Occurred()) {
        done = shortcut_exchange(self, &prefix, tensors, timeout_s);
        if (done == NULL)
            done = shortcut_raised(self);
    }
    Py_DECREF(tensors);
    PyObject *result = NULL;
    if (done != NULL && PyTuple_Check(done) && PyTuple_Size(done) == 2) {
        PyObject *arrays = PyTuple_GetItem(done, 0);
        Py_INCREF(arrays);
        result = shortcut_result(self, arrays, PyTuple_GetItem(PyTuple_GetItem(done, 1), 1),
                                 prefix.request_id);
    } else if (done != NULL)
        result = shortcut_go_on(self, connection, inputs, next, deadline, done);
    Py_XDECREF(done);
    Py_XDECREF(next);
    return result;
}

/* ask(connection, inputs, timeout_s) */
static PyObject *shortcut_ask(Shortcut *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "ask takes a connection, inputs and a time");
        return NULL;
    }
    double timeout_s = PyFloat_AsDouble(args[2]);
    if (timeout_s == -1 && PyErr_Occurred())
        return NULL;
    if (!shortcut_is_good(self))
        Py_RETURN_NONE;
    PyObject *taken = PyObject_CallFunctionObjArgs(self->objects[ACQUIRE], Py_False, NULL);
    if (taken == NULL)
        return NULL;
    Py_DECREF(taken);
    if (taken == Py_False)
        Py_RETURN_NONE;
    PyObject *result = NULL;
    if (shortcut_is_good(self)) /* somebody may have had the lock meanwhile */
        result = shortcut_ask_now(self, args[0], args[1], timeout_s);
    else {
        Py_INCREF(Py_None);
        result = Py_None;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *released = PyObject_CallNoArgs(self->objects[RELEASE]);
    if (released == NULL)
        Py_CLEAR(result);
    else
        PyErr_Restore(type, value, traceback);
    Py_XDECREF(released);
    return result;
}

static PyMethodDef shortcut_methods[] = {
    {"ask", (PyCFunction)(void (*)(void))shortcut_ask, METH_FASTCALL,
     "ask(connection, inputs, timeout_s) -> a result, or what go_on gives; None when nothing was "
     "asked"},
    {NULL},
};

static PyMemberDef shortcut_members[] = {
    {"good", T_BOOL, offsetof(Shortcut, good), 0, NULL},
    {NULL},
};

static PyType_Slot shortcut_slots[] = {
    {Py_tp_doc, "Shortcut(objects, fd, moment_ns, crowded_ns): asks what is like the last."},
    {Py_tp_new, shortcut_new},
    {Py_tp_dealloc, shortcut_dealloc},
    {Py_tp_traverse, shortcut_traverse},
    {Py_tp_clear, shortcut_clear},
    {Py_tp_methods, shortcut_methods},
    {Py_tp_members, shortcut_members},
    {0, NULL},
};

PyType_Spec shortcut_spec = {
    .name = "superbrain.transport._loop.Shortcut",
    .basicsize = sizeof(Shortcut),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = shortcut_slots,
};
