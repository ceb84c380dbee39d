/* The id in a header, apart from what requests that are alike have in common. As wire/naming.py. */

#define _GNU_SOURCE /* memmem */
#include "loop.h"

static const char key[] = "\"id\"";

/* Find where the id stands between its quotes. 0 where it is not plain to see which it is. */
static int find_id(const char *header, size_t size, size_t *first, size_t *end) {
    const size_t key_size = sizeof(key) - 1;
    const char *stop = header + size, *at = memmem(header, size, key, key_size);
    if (at == NULL)
        return 0;
    at += key_size;
    if (memmem(at, (size_t)(stop - at), key, key_size) != NULL)
        return 0;
    if (at < stop && *at == ':')
        at++;
    else
        return 0;
    if (at < stop && *at == ' ')
        at++;
    if (at == stop || *at++ != '"')
        return 0;
    *first = (size_t)(at - header);
    while (at < stop && *at != '"' && *at != '\\')
        at++;
    *end = (size_t)(at - header);
    return at < stop && *at == '"' && *end > *first;
}

/* Give a request's header with an empty id, and the id. New references. */
int header_without_id(PyObject *header, PyObject **bare, PyObject **name) {
    const char *data = PyBytes_AsString(header);
    size_t size = (size_t)PyBytes_Size(header), first = 0, end = 0;
    if (!find_id(data, size, &first, &end)) {
        Py_INCREF(header);
        *bare = header;
        *name = PyBytes_FromStringAndSize(NULL, 0);
    } else {
        *name = PyBytes_FromStringAndSize(data + first, (Py_ssize_t)(end - first));
        *bare = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(size - (end - first)));
        if (*bare != NULL) {
            char *to = PyBytes_AsString(*bare);
            memcpy(to, data, first);
            memcpy(to + first, data + end, size - end);
        }
    }
    if (*bare != NULL && *name != NULL)
        return 0;
    Py_CLEAR(*bare);
    Py_CLEAR(*name);
    return -1;
}

/* Give the header of an answer with the id in its place, which is empty and comes last: as
 * wire/naming.py. None when it does not end so. A new reference. */
PyObject *header_with_id(PyObject *header, PyObject *name) {
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
