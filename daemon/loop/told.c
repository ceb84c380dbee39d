/* Small things that are told to Python's objects: rows of a tally (serve/tally.py), attributes, errors. */

#include "loop.h"

enum { ROWS = 256 };

/* Count a request: a row in the buffer that the tally has now, whose first number is how many. */
int tally_add(const State *state, PyObject *tally, const Row *row) {
    PyObject *room = PyObject_GetAttr(tally, state->names[ATTR_ROOM]);
    Py_buffer view;
    if (room == NULL)
        return -1;
    int result = PyObject_GetBuffer(room, &view, PyBUF_WRITABLE);
    Py_DECREF(room);
    if (result < 0)
        return -1;
    int64_t *count = view.buf;
    if (view.len != (Py_ssize_t)(sizeof(*count) + ROWS * sizeof(*row)) || *count < 0 ||
        *count >= ROWS) {
        PyBuffer_Release(&view);
        PyErr_SetString(PyExc_ValueError, "expected room in the tally");
        return -1;
    }
    memcpy((Row *)(count + 1) + *count, row, sizeof(*row));
    int full = ++*count == ROWS;
    PyBuffer_Release(&view);
    if (!full)
        return 0;
    PyObject *done = PyObject_CallMethod(tally, "full", NULL);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* Set an attribute to a number. */
int tell(PyObject *whom, PyObject *name, uint64_t value) {
    PyObject *number = PyLong_FromUnsignedLongLong(value);
    int result = number == NULL ? -1 : PyObject_SetAttr(whom, name, number);
    Py_XDECREF(number);
    return result;
}

/* Read an attribute that is a number. */
int heard(PyObject *whom, PyObject *name, int64_t *value) {
    PyObject *number = PyObject_GetAttr(whom, name);
    if (number == NULL)
        return -1;
    *value = PyLong_AsLongLong(number);
    Py_DECREF(number);
    return PyErr_Occurred() ? -1 : 0;
}

/* Count one more. */
int count_up(PyObject *whom, PyObject *name) {
    int64_t value;
    return heard(whom, name, &value) < 0 ? -1 : tell(whom, name, (uint64_t)value + 1);
}

/* Take the exception that has been raised; a new reference. */
PyObject *taken_exception(void) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL && value != NULL)
        PyException_SetTraceback(value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
}

/* Make an object by its attributes, past its type's __init__. Takes the values; one that is NULL is
 * an error that has been raised. */
PyObject *made_of(PyTypeObject *type, const Attribute *attributes, int count) {
    PyObject *made = PyType_GenericAlloc(type, 0);
    for (int n = 0; n < count; n++) {
        const Attribute *one = &attributes[n];
        if (made != NULL &&
            (one->value == NULL || PyObject_SetAttr(made, one->name, one->value) < 0))
            Py_CLEAR(made);
        Py_XDECREF(one->value);
    }
    return made;
}
