/* What is to be sent on several connections at the end of a turn: all of one connection at once. */

#include "posts.h"

void posts_add(Posts *self, int fd, PyObject *written) {
    self->posts[self->count++] = (Post){fd, written};
}

void posts_clear(Posts *self) {
    while (self->count > 0)
        Py_DECREF(self->posts[--self->count].written);
}

/* Keep what a peer did not take for the twin: (fd, what, how many of its bytes were taken). */
static int keep(PyObject *unsent, const Posts *posts, Py_ssize_t sent) {
    PyObject *written = PyTuple_New(posts->count);
    if (written == NULL)
        return -1;
    for (int n = 0; n < posts->count; n++) {
        Py_INCREF(posts->posts[n].written);
        PyTuple_SetItem(written, n, posts->posts[n].written);
    }
    PyObject *entry = Py_BuildValue("iNn", posts->posts[0].fd, written, sent);
    int result = entry == NULL ? -1 : PyList_Append(unsent, entry);
    Py_XDECREF(entry);
    return result;
}

static int send_some(const Posts *posts, PyObject *unsent) {
    struct iovec parts[MAX_POSTS];
    size_t total = 0;
    for (int n = 0; n < posts->count; n++) {
        PyObject *written = posts->posts[n].written;
        parts[n] = (struct iovec){PyBytes_AsString(written), (size_t)PyBytes_Size(written)};
        total += parts[n].iov_len;
    }
    Py_ssize_t sent = offer(posts->posts[0].fd, parts, (size_t)posts->count);
    return sent >= 0 && (size_t)sent == total ? 0 : keep(unsent, posts, sent);
}

/* Move what is for the first one's connection to `own`; all keep their order. */
static void take_own(Posts *self, Posts *own) {
    int fd = self->posts[0].fd, left = 0;
    for (int n = 0; n < self->count; n++)
        if (self->posts[n].fd == fd)
            own->posts[own->count++] = self->posts[n];
        else
            self->posts[left++] = self->posts[n];
    self->count = left;
}

/* Send everything; what is not taken is appended to `unsent`, once for each connection: nothing is
 * sent behind what was not taken. */
int posts_deliver(Posts *self, PyObject *unsent) {
    int result = 0;
    while (result == 0 && self->count > 0) {
        Posts own;
        own.count = 0;
        take_own(self, &own);
        result = send_some(&own, unsent);
        posts_clear(&own);
    }
    posts_clear(self);
    return result;
}
