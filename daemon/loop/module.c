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

static const char *const names[ATTRIBUTES] = {
    [ATTR_SINCE] = "executing_since_ns",
    [ATTR_BEGAN] = "began_ns",
    [ATTR_FIRST] = "first_ns",
    [ATTR_ENGINE] = "engine_ns",
    [ATTR_ROOM] = "room",
    [ATTR_MODEL_NAME] = "model_name",
    [ATTR_MODEL_VERSION] = "model_version",
    [ATTR_ID] = "id",
    [ATTR_OUTPUTS] = "_outputs",
    [ATTR_NUMBER] = "number",
    [ATTR_ENVELOPE] = "envelope",
    [ATTR_HEADER] = "header",
    [ATTR_TENSORS] = "tensors",
    [ATTR_VERSION] = "version",
    [ATTR_PRIORITY] = "priority",
    [ATTR_ARRIVED] = "arrived_ns",
    [ATTR_DEADLINE] = "deadline_ns",
    [ATTR_DEATHS] = "deaths",
    [ATTR_SPAN] = "span",
    [ATTR_FD] = "fd",
    [ATTR_PEER] = "peer",
    [ATTR_FRAMES] = "frames",
    [ATTR_REQUESTS] = "requests",
    [ATTR_ANSWERED] = "answered",
};

/* Make a type and add it to the module; its reference is kept in `kept`, or by the module alone. */
static int add_type(PyObject *module, PyType_Spec *spec, PyObject **kept) {
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    int result = type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)type);
    if (kept != NULL)
        *kept = type;
    else
        Py_XDECREF(type);
    return result;
}

static int execute(PyObject *module) {
    State *state = PyModule_GetState(module);
    for (int n = 0; n < ATTRIBUTES; n++)
        if ((state->names[n] = PyUnicode_InternFromString(names[n])) == NULL)
            return -1;
    if (add_type(module, &frame_spec, &state->frame_type) < 0 ||
        add_type(module, &reader_spec, &state->reader_type) < 0 ||
        add_type(module, &packing_spec, &state->packing_type) < 0 ||
        add_type(module, &express_spec, NULL) < 0 || add_type(module, &shortcut_spec, NULL) < 0 ||
        add_type(module, &relay_spec, NULL) < 0)
        return -1;
    return PyModule_AddIntConstant(module, "REVISION", REVISION);
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
    for (int n = 0; n < ATTRIBUTES; n++)
        Py_CLEAR(state->names[n]);
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
