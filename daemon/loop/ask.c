/* The usual request of a client that is alone on its lane, in one step: send, look, make arrays.
 *
 * The usual request is like the last one, and so is its answer. Its twin is the way that all others
 * go, by client/connection.py. What this does not finish, that goes on with.
 */

#include "loop.h"

#include <poll.h>

/* The answer that is the only frame, made into arrays: (arrays, what is known of such answers: their
 * packing, their form, and where they are if that is in shared memory). None when it is not one like
 * those before. */
static PyObject *answer_of(const State *state, PyObject *frames, uint64_t number,
                           PyObject *answers) {
    if (PyList_Size(frames) != 1)
        Py_RETURN_NONE;
    const Frame *frame = (const Frame *)PyList_GetItem(frames, 0);
    if (frame->kind != RESPONSE || frame->request_id != number)
        Py_RETURN_NONE;
    PyObject *known = PyDict_GetItemWithError(answers, frame->header);
    if (known == NULL && PyErr_Occurred())
        return NULL;
    if (known == NULL || !PyTuple_Check(known) || PyTuple_Size(known) < 1 ||
        !PyObject_TypeCheck(PyTuple_GetItem(known, 0), (PyTypeObject *)state->packing_type))
        Py_RETURN_NONE;
    Py_INCREF(known); /* whoever collects meanwhile may forget it */
    PyObject *tensors = frame->tensors; /* or where they are in shared memory */
    if (PyTuple_Size(known) == 3 && PyList_Size(tensors) == 0)
        tensors = PyTuple_GetItem(known, 2);
    PyObject *arrays = packing_unpack(PyTuple_GetItem(known, 0), tensors);
    if (arrays != NULL && arrays != Py_None)
        arrays = Py_BuildValue("NO", arrays, known);
    Py_DECREF(known);
    return arrays;
}

/* Sleep until something comes, for so long at most; a signal ends it too. */
static void sleep_for(int fd, int ms) {
    struct pollfd wanted = {.fd = fd, .events = POLLIN};
    Py_BEGIN_ALLOW_THREADS
    (void)poll(&wanted, 1, ms);
    Py_END_ALLOW_THREADS
}

/* Send the request, look for its answer, and sleep then if that is wanted; give what `ask` does. */
PyObject *ask_exchange(const State *state, PyObject *reader, int fd, const Prefix *prefix,
                       PyObject *header, PyObject *tensors, PyObject *answers, Look look,
                       int sleep_ms) {
    Py_ssize_t sent = frame_send(fd, prefix, header, tensors);
    if (sent == SENT_ERROR)
        return NULL;
    if (sent != SENT_ALL)
        return Py_BuildValue("On[]", tensors, sent);
    PyObject *frames = NULL;
    if (look.moment_ns != 0 || sleep_ms == 0)
        frames = reader_frames(reader, fd, 0, look);
    if (sleep_ms != 0 && !PyErr_Occurred() && (frames == NULL || PyList_Size(frames) == 0)) {
        Py_XDECREF(frames);
        sleep_for(fd, sleep_ms);
        frames = reader_frames(reader, fd, 0, (Look){0});
    }
    if (frames == NULL)
        return NULL;
    PyObject *answer = answer_of(state, frames, prefix->request_id, answers);
    if (answer == Py_None) {
        Py_DECREF(answer);
        answer = Py_BuildValue("OOO", tensors, Py_None, frames);
    }
    Py_DECREF(frames);
    return answer;
}

/* ask(reader, fd, packing, inputs, header, number, deadline_ns, answers, moment_ns, crowded_ns) */
PyObject *loop_ask(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    const State *state = PyModule_GetState(module);
    if (count != 10 || !PyObject_TypeCheck(args[0], (PyTypeObject *)state->reader_type) ||
        !PyObject_TypeCheck(args[2], (PyTypeObject *)state->packing_type) ||
        !PyDict_Check(args[7])) {
        PyErr_SetString(PyExc_TypeError, "ask takes a Reader, a Packing and what belongs to them");
        return NULL;
    }
    long fd = PyLong_AsLong(args[1]);
    Prefix prefix = {.kind = REQUEST,
                     .request_id = PyLong_AsUnsignedLongLong(args[5]),
                     .deadline_ns = PyLong_AsUnsignedLongLong(args[6])};
    Look look = {PyLong_AsUnsignedLongLong(args[8]), PyLong_AsUnsignedLongLong(args[9])};
    if (PyErr_Occurred())
        return NULL;
    PyObject *tensors = packing_pack(args[2], args[3]);
    if (tensors == NULL || tensors == Py_None)
        return tensors;
    PyObject *result =
        ask_exchange(state, args[0], (int)fd, &prefix, args[4], tensors, args[7], look, 0);
    Py_DECREF(tensors);
    return result;
}
