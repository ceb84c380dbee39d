/* The module superbrain.transport._loop: what it is made of. */

#include "loop.h"

static PyMethodDef methods[] = {
    {"encode", (PyCFunction)(void (*)(void))loop_encode, METH_FASTCALL,
     "encode(kind, priority, request_id, deadline_ns, header, tensors) -> bytes of a small frame"},
    {"ask", (PyCFunction)(void (*)(void))loop_ask, METH_FASTCALL,
     "ask(reader, fd, packing, inputs, header, number, deadline_ns, answers, moment_ns, crowded_ns) "
     "-> None when the inputs are not like those; (arrays, the entry of answers) if it was answered "
     "within the moment, by a header in there; else (tensors, bytes sent or None for all, frames)"},
    {"send", (PyCFunction)(void (*)(void))loop_send, METH_FASTCALL,
     "send(fd, kind, priority, request_id, deadline_ns, header, tensors) -> bytes sent, None for all"},
    {NULL},
};

/* Make a type and add it to the module; a new reference. */
static PyObject *add_type(PyObject *module, PyType_Spec *spec) {
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    if (type != NULL && PyModule_AddType(module, (PyTypeObject *)type) < 0)
        Py_CLEAR(type);
    return type;
}

static int execute(PyObject *module) {
    State *state = PyModule_GetState(module);
    state->frame_type = add_type(module, &frame_spec);
    state->reader_type = add_type(module, &reader_spec);
    state->packing_type = add_type(module, &packing_spec);
    PyObject *express = add_type(module, &express_spec);
    int failed = state->frame_type == NULL || state->reader_type == NULL ||
                 state->packing_type == NULL || express == NULL;
    Py_XDECREF(express);
    return failed ? -1 : PyModule_AddIntConstant(module, "REVISION", REVISION);
}

static int traverse(PyObject *module, visitproc visit, void *arg) {
    State *state = PyModule_GetState(module);
    Py_VISIT(state->frame_type);
    Py_VISIT(state->packing_type);
    Py_VISIT(state->reader_type);
    return 0;
}

static int clear(PyObject *module) {
    State *state = PyModule_GetState(module);
    Py_CLEAR(state->frame_type);
    Py_CLEAR(state->packing_type);
    Py_CLEAR(state->reader_type);
    return 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "superbrain.transport._loop",
    .m_doc = "The steps that every request on a lane takes, compiled.",
    .m_size = sizeof(State),
    .m_methods = methods,
    .m_slots = slots,
    .m_traverse = traverse,
    .m_clear = clear,
};

PyMODINIT_FUNC PyInit__loop(void) { return PyModuleDef_Init(&definition); }
