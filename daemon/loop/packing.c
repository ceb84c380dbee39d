/* Tensors that are like those seen before: checked in one step, made into arrays in one step. */

#include "loop.h"

enum { MAX_DIMENSIONS = 16, MAX_FORMAT_BYTES = 4 };

typedef struct {
    PyObject *name, *dtype, *shape; /* str, numpy.dtype, tuple of int */
    Py_ssize_t size_bytes, sizes[MAX_DIMENSIONS];
    int dimensions;
    char format[MAX_FORMAT_BYTES];
} Layout;

typedef struct {
    PyObject_HEAD
    PyObject *array_type; /* numpy.ndarray */
    Py_ssize_t count;
    Layout *layouts;
} Packing;

static int packing_traverse(Packing *self, visitproc visit, void *arg) {
    Py_VISIT((PyObject *)TYPE_OF(self));
    Py_VISIT(self->array_type);
    return 0;
}

static int packing_clear(Packing *self) {
    for (Py_ssize_t n = 0; n < self->count; n++) {
        Py_CLEAR(self->layouts[n].name);
        Py_CLEAR(self->layouts[n].dtype);
        Py_CLEAR(self->layouts[n].shape);
    }
    self->count = 0;
    Py_CLEAR(self->array_type);
    return 0;
}

static void packing_dealloc(Packing *self) {
    PyTypeObject *type = TYPE_OF(self);
    PyObject_GC_UnTrack(self);
    packing_clear(self);
    PyMem_Free(self->layouts);
    PyObject_GC_Del(self);
    Py_DECREF((PyObject *)type);
}

/* Take (name, dtype, shape, format, size in bytes); the references are the layout's own. */
static int layout_read(Layout *self, PyObject *from) {
    const char *format;
    PyObject *name, *dtype, *shape;
    if (!PyTuple_Check(from)) {
        PyErr_SetString(PyExc_TypeError, "expected a tuple for each tensor");
        return -1;
    }
    if (!PyArg_ParseTuple(from, "UOO!sn", &name, &dtype, &PyTuple_Type, &shape, &format,
                          &self->size_bytes))
        return -1;
    self->dimensions = (int)PyTuple_Size(shape);
    if (PyTuple_Size(shape) > MAX_DIMENSIONS || strlen(format) >= MAX_FORMAT_BYTES) {
        PyErr_SetString(PyExc_ValueError, "expected fewer dimensions and a plain number");
        return -1;
    }
    for (int n = 0; n < self->dimensions; n++) {
        self->sizes[n] = PyLong_AsSsize_t(PyTuple_GetItem(shape, n));
        if (self->sizes[n] == -1 && PyErr_Occurred())
            return -1;
    }
    strcpy(self->format, format);
    Py_INCREF(name);
    self->name = name;
    Py_INCREF(dtype);
    self->dtype = dtype;
    Py_INCREF(shape);
    self->shape = shape;
    return 0;
}

static PyObject *packing_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs)) {
    PyObject *array_type, *layouts;
    if (!PyArg_ParseTuple(args, "O!O!", &PyType_Type, &array_type, &PyTuple_Type, &layouts))
        return NULL;
    Py_ssize_t count = PyTuple_Size(layouts);
    Packing *self = PyObject_GC_New(Packing, type);
    if (self == NULL)
        return NULL;
    Py_INCREF(array_type);
    self->array_type = array_type;
    self->count = 0;
    self->layouts = PyMem_Calloc((size_t)count + 1, sizeof(Layout));
    PyObject_GC_Track(self);
    if (self->layouts == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    while (self->count < count) {
        if (layout_read(&self->layouts[self->count], PyTuple_GetItem(layouts, self->count)) < 0) {
            Py_DECREF(self);
            return NULL;
        }
        self->count++;
    }
    return (PyObject *)self;
}

static int layout_named(const Layout *self, PyObject *name) {
    if (name == self->name)
        return 1;
    if (!PyUnicode_Check(name) || PyUnicode_Compare(name, self->name) != 0) {
        PyErr_Clear();
        return 0;
    }
    return 1;
}

/* Whether a value is an array of that datatype and shape, in one piece. */
static int layout_fits(const Layout *self, PyObject *array_type, PyObject *value) {
    Py_buffer view;
    if ((PyObject *)Py_TYPE(value) != array_type)
        return 0;
    if (PyObject_GetBuffer(value, &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) < 0) {
        PyErr_Clear(); /* not in one piece, or no number */
        return 0;
    }
    int fits = view.ndim == self->dimensions && view.len == self->size_bytes &&
               view.format != NULL && strcmp(view.format, self->format) == 0;
    for (int n = 0; fits && n < self->dimensions; n++)
        fits = view.shape[n] == self->sizes[n];
    PyBuffer_Release(&view);
    return fits;
}

static PyObject *bytes_of(PyObject *array) {
    PyObject *view = PyMemoryView_FromObject(array);
    if (view == NULL)
        return NULL;
    PyObject *flat = PyObject_CallMethod(view, "cast", "s", "B");
    Py_DECREF(view);
    return flat;
}

PyObject *packing_pack(PyObject *packing, PyObject *arrays) {
    const Packing *self = (const Packing *)packing;
    PyObject *name, *value;
    Py_ssize_t position = 0, n = 0;
    if (!PyDict_Check(arrays) || PyDict_Size(arrays) != self->count)
        Py_RETURN_NONE;
    while (n < self->count && PyDict_Next(arrays, &position, &name, &value)) {
        const Layout *layout = &self->layouts[n++];
        if (!layout_named(layout, name) || !layout_fits(layout, self->array_type, value))
            Py_RETURN_NONE;
    }
    PyObject *tensors = PyList_New(self->count);
    if (tensors == NULL)
        return NULL;
    position = n = 0;
    while (n < self->count && PyDict_Next(arrays, &position, &name, &value)) {
        PyObject *tensor = bytes_of(value);
        if (tensor == NULL) {
            Py_DECREF(tensors);
            return NULL;
        }
        PyList_SetItem(tensors, n++, tensor);
    }
    return tensors;
}

/* Make the array that lies on `data`; NULL without an error when the size is another. */
static PyObject *layout_array(const Layout *self, PyObject *array_type, PyObject *data) {
    Py_ssize_t size = PyObject_Size(data);
    if (size != self->size_bytes) {
        if (size < 0)
            PyErr_Clear();
        return NULL;
    }
    return PyObject_CallFunctionObjArgs(array_type, self->shape, self->dtype, data, NULL);
}

PyObject *packing_unpack(PyObject *packing, PyObject *tensors) {
    const Packing *self = (const Packing *)packing;
    if (!PyList_Check(tensors) || PyList_Size(tensors) != self->count)
        Py_RETURN_NONE;
    PyObject *arrays = PyDict_New();
    if (arrays == NULL)
        return NULL;
    for (Py_ssize_t n = 0; n < self->count; n++) {
        const Layout *layout = &self->layouts[n];
        PyObject *array = layout_array(layout, self->array_type, PyList_GetItem(tensors, n));
        if (array == NULL || PyDict_SetItem(arrays, layout->name, array) < 0) {
            Py_XDECREF(array);
            Py_DECREF(arrays);
            if (PyErr_Occurred())
                return NULL;
            Py_RETURN_NONE;
        }
        Py_DECREF(array);
    }
    return arrays;
}

static PyMethodDef packing_methods[] = {
    {"pack", packing_pack, METH_O,
     "pack(arrays) -> the bytes of each, or None when they are not like these"},
    {"unpack", packing_unpack, METH_O,
     "unpack(tensors) -> the array on each by name, or None when a size is another"},
    {NULL},
};

static PyType_Slot packing_slots[] = {
    {Py_tp_doc, "Packing(array_type, layouts): tensors of these names, datatypes and shapes."},
    {Py_tp_new, packing_new},
    {Py_tp_dealloc, packing_dealloc},
    {Py_tp_traverse, packing_traverse},
    {Py_tp_clear, packing_clear},
    {Py_tp_methods, packing_methods},
    {0, NULL},
};

PyType_Spec packing_spec = {
    .name = "superbrain.transport._loop.Packing",
    .basicsize = sizeof(Packing),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = packing_slots,
};
