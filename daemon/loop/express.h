/* What express.c, which executes a request, and spell.c, which takes them in, have in common. */

#ifndef SUPERBRAIN_EXPRESS_H
#define SUPERBRAIN_EXPRESS_H

#include "loop.h"

/* A worker's turn for the usual request. */
typedef struct {
    PyObject_HEAD
    Py_buffer page;    /* at least a Page */
    PyObject *figures; /* whose executing_since_ns other threads read */
    PyObject *tally;   /* of the figures: what answered requests took */
    PyObject *clock;   /* is told of runs while the model answers */
    PyObject *answer;  /* the model: arrays by name -> arrays by name */
    PyObject *zero;
    PyObject *header; /* of the request that is being executed, else None */
    State *state;     /* of the module, which the type keeps */
    unsigned long long took_ns, ended_ns; /* the last execution */
} Express;

/* A request, and what belongs to it. Nothing here is owned. */
typedef struct {
    Frame *frame;
    PyObject *form; /* how one like it was answered */
    PyObject *name; /* its id, which is not part of the form; empty where it has none */
    uint64_t lane, arrived_ns, began_ns;
} Request;

/* What became of it. */
typedef struct {
    enum {
        NOT_HERE, /* nothing was done: it goes the twin's way */
        SENT,     /* answered, and counted */
        WRITTEN,  /* likewise, but the answer is to be sent */
        LEFT,     /* executed: the twin makes the answer, of which `sent` bytes are sent, and counts */
    } how;
    PyObject *written; /* owned where WRITTEN */
    PyObject *outcome; /* owned where LEFT: what the model gave or raised */
    int failed;
    Py_ssize_t sent;
} Done;

int express_takes(const Express *self, PyObject *form, const Frame *frame);
int express_execute(Express *self, int fd, const Request *request, Done *done);
PyObject *express_left(Done *done, unsigned long long ended_ns);

#define SPELL_DOC                                                                                    \
    "spell(epoll_fd, lanes, forms, limits) -> (how many were executed, whether anything came, what " \
    "else is ready, "                                                                                \
    "(fd, what came there that is for the twin) or None, answers that the peer did not take, "       \
    "whether somebody else wants the processor)"
PyObject *express_spell(Express *self, PyObject *const *args, Py_ssize_t count);

#endif
