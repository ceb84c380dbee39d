/* A worker's turns as long as nothing but usual requests comes: wait, receive, execute, answer.
 *
 * Whatever else comes ends the spell and is handed to the twin, by serve/worker_loop.py and
 * serve/executor.py, in the order in which it came. There are the rules that this one has to keep: who
 * may be answered as it comes, and which answers wait for each other.
 */

#include "express.h"
#include "posts.h"

#include <sched.h>
#include <sys/epoll.h>

enum { MAX_EVENTS = 64, LONGEST_KEPT_BYTES = 4096 };

/* What the twin knows of a lane on which nothing waits to be sent. */
enum { READER, NUMBER, SHARED_FORMS, LANE_PARTS };

/* Times in nanoseconds. */
typedef struct {
    uint64_t moment, crowded; /* as for a Look */
    uint64_t most;            /* requests of one spell */
    uint64_t together;        /* so long answers may wait for each other */
    uint64_t quick;           /* who takes longer executes the most urgent first */
    uint64_t room;            /* requests that may wait */
    uint64_t soon;            /* who has less left is looked after one by one */
} Limits;

typedef struct {
    Express *express;
    PyObject *lanes, *forms;
    int epoll_fd;
    Limits limits;
    uint64_t executed;
    Posts posts; /* answers that wait for each other */
    PyObject *ready;  /* list of (fd, events) that are for the twin */
    PyObject *found;  /* (fd, what came there), else NULL */
    PyObject *unsent; /* list of (fd, answers, how many of their bytes the peer took) */
    char came; /* anything */
    char crowded;
} Spell;

/* --- waiting ---------------------------------------------------------------------------------- */

/* Give how many events there are, or come while one looks. */
static int spell_wait(Spell *self, struct epoll_event *events) {
    const Limits *limits = &self->limits;
    int count;
    char crowded = 0;
    Py_BEGIN_ALLOW_THREADS
    uint64_t now = limits->moment != 0 ? monotonic_ns() : 0, until = now + limits->moment;
    while ((count = epoll_wait(self->epoll_fd, events, MAX_EVENTS, 0)) == 0 && now < until &&
           !crowded) {
        uint64_t before = now;
        sched_yield();
        now = monotonic_ns();
        crowded = now - before > limits->crowded;
    }
    Py_END_ALLOW_THREADS
    self->crowded = crowded;
    return count;
}

/* --- requests --------------------------------------------------------------------------------- */

/* Find how a request like this one was answered. Its name is a new reference, the form is borrowed. 0
 * when there is none. */
static int spell_form(const Spell *self, PyObject *shared_forms, const Frame *frame,
                      PyObject **form, PyObject **name) {
    PyObject *header = frame->header, *bare = NULL;
    *name = NULL;
    *form = NULL;
    if (frame->kind == FORWARD && PyBytes_Size(header) <= LONGEST_KEPT_BYTES) {
        if (header_without_id(header, &bare, name) < 0)
            return -1;
        header = bare;
    } else if ((*name = PyBytes_FromStringAndSize(NULL, 0)) == NULL)
        return -1;
    *form = PyDict_GetItemWithError(self->forms, header);
    if (*form == NULL && !PyErr_Occurred())
        *form = PyDict_GetItemWithError(shared_forms, header);
    Py_XDECREF(bare);
    if (*form != NULL && express_takes(self->express, *form, frame))
        return 1;
    Py_CLEAR(*name);
    return PyErr_Occurred() ? -1 : 0;
}

/* Find what is for the twin: what was executed and is left to it, else None; frames; when they came. */
static int spell_find(Spell *self, int fd, PyObject *left, PyObject *frames, Py_ssize_t from,
                      uint64_t arrived_ns) {
    PyObject *rest = PyList_GetSlice(frames, from, PyList_Size(frames));
    if (rest != NULL)
        self->found = Py_BuildValue("i(ONK)", fd, left, rest, (unsigned long long)arrived_ns);
    return self->found == NULL ? -1 : 0;
}

/* Execute the request; send its answer, or post it with an `fd` below 0. 1 when that was all, 0 when
 * it is for the twin: `left` is what it has to know of it if it was executed. */
static int spell_execute(Spell *self, int fd, int answers, PyObject *lane, Frame *frame,
                         uint64_t arrived_ns, uint64_t now_ns, PyObject **left) {
    Request request = {.frame = frame, .arrived_ns = arrived_ns, .began_ns = now_ns};
    int found = spell_form(self, PyTuple_GetItem(lane, SHARED_FORMS), frame, &request.form,
                           &request.name);
    if (found <= 0)
        return found;
    request.lane = PyLong_AsUnsignedLongLong(PyTuple_GetItem(lane, NUMBER));
    Done done;
    int result = PyErr_Occurred()
                     ? -1
                     : express_execute(self->express, answers ? fd : -1, &request, &done);
    Py_DECREF(request.name);
    if (result < 0 || done.how == NOT_HERE)
        return result;
    self->executed++;
    if (done.how == WRITTEN)
        posts_add(&self->posts, fd, done.written);
    if (done.how != LEFT)
        return 1;
    PyObject *outcome = express_left(&done, self->express->ended_ns);
    *left = outcome == NULL ? NULL : Py_BuildValue("OKN", frame, (unsigned long long)now_ns, outcome);
    return *left == NULL ? -1 : 0;
}

/* Whether one more may be executed, and its answer wait. */
static int spell_has_room(const Spell *self) {
    return self->executed < self->limits.most && self->posts.count < MAX_POSTS;
}

/* Whether these may be executed one by one, for the queue would leave them as they came. */
static int spell_at_once(const Spell *self, PyObject *frames, uint64_t now_ns) {
    Py_ssize_t count = PyList_Size(frames);
    const Frame *first = (const Frame *)PyList_GetItem(frames, 0);
    if (count == 1)
        return first->deadline_ns == 0 || first->deadline_ns > now_ns;
    if ((uint64_t)count > self->limits.room || self->limits.quick == 0)
        return 0;
    for (Py_ssize_t n = 0; n < count; n++) {
        const Frame *frame = (const Frame *)PyList_GetItem(frames, n);
        if (frame->priority != first->priority ||
            frame->deadline_ns <= now_ns + self->limits.soon)
            return 0;
    }
    return 1;
}

/* Execute what came on a lane, as far as it is usual; what of it is for the twin is `found`. */
static int spell_frames(Spell *self, int fd, PyObject *lane, PyObject *frames, uint64_t until_ns) {
    Py_ssize_t count = PyList_Size(frames), n = 0;
    uint64_t arrived_ns = monotonic_ns(), now_ns = arrived_ns;
    int answers = until_ns == 0 && count == 1;
    PyObject *left = NULL;
    if (until_ns == 0)
        until_ns = arrived_ns + self->limits.together;
    if (count > 0 && spell_at_once(self, frames, arrived_ns))
        for (; n < count && spell_has_room(self); n++, now_ns = self->express->ended_ns) {
            if (n > 0 && now_ns >= until_ns)
                break;
            int done = spell_execute(self, fd, answers, lane, (Frame *)PyList_GetItem(frames, n),
                                     arrived_ns, now_ns, &left);
            if (done < 0)
                return -1;
            if (done == 0)
                break;
        }
    if (n == count)
        return 0;
    int result = left == NULL ? spell_find(self, fd, Py_None, frames, n, arrived_ns)
                              : spell_find(self, fd, left, frames, n + 1, arrived_ns);
    Py_XDECREF(left);
    return result;
}

/* Receive what a lane has, and execute it. */
static int spell_lane(Spell *self, int fd, PyObject *lane, uint64_t until_ns) {
    PyObject *reader = PyTuple_GetItem(lane, READER);
    PyObject *frames = reader_frames(reader, fd, 1, (Look){0});
    if (frames == NULL) {
        self->found = Py_BuildValue("iN", fd, taken_exception());
        return self->found == NULL ? -1 : 0;
    }
    int result = reader_is_plain(reader) /* else its end, or descriptors */
                     ? spell_frames(self, fd, lane, frames, until_ns)
                     : spell_find(self, fd, Py_None, frames, 0, monotonic_ns());
    Py_DECREF(frames);
    return result;
}

/* --- turns ------------------------------------------------------------------------------------ */

/* The lane of an event, borrowed; NULL where it is for the twin. */
static PyObject *spell_event_lane(const Spell *self, const struct epoll_event *event) {
    PyObject *fd = event->events == EPOLLIN ? PyLong_FromLong(event->data.fd) : NULL;
    if (fd == NULL)
        return NULL;
    PyObject *lane = PyDict_GetItemWithError(self->lanes, fd);
    Py_DECREF(fd);
    if (lane == NULL || !PyTuple_Check(lane) || PyTuple_Size(lane) != LANE_PARTS ||
        !PyObject_TypeCheck(PyTuple_GetItem(lane, READER),
                            (PyTypeObject *)self->express->state->reader_type) ||
        !PyDict_Check(PyTuple_GetItem(lane, SHARED_FORMS)))
        return NULL;
    return lane;
}

static int spell_hand_over(Spell *self, const struct epoll_event *events, int count) {
    for (int n = 0; n < count; n++) {
        PyObject *event = Py_BuildValue("iI", events[n].data.fd, (unsigned)events[n].events);
        int result = event == NULL ? -1 : PyList_Append(self->ready, event);
        Py_XDECREF(event);
        if (result < 0)
            return -1;
    }
    return 0;
}

/* Whether of several lanes that have something the next one may be answered as it comes. */
static int spell_goes_on(const Spell *self, uint64_t until_ns) {
    const Express *express = self->express;
    return self->limits.quick != 0 && express->took_ns <= self->limits.quick &&
           express->ended_ns < until_ns;
}

/* Treat what is ready; all of it is for the twin when one event is. */
static int spell_events(Spell *self, const struct epoll_event *events, int count) {
    for (int n = 0; n < count; n++)
        if (spell_event_lane(self, &events[n]) == NULL)
            return PyErr_Occurred() ? -1 : spell_hand_over(self, events, count);
    uint64_t until_ns = count > 1 ? monotonic_ns() + self->limits.together : 0;
    int n = 0;
    for (; n < count && self->found == NULL; n++) {
        if (count > 1 && (!spell_has_room(self) || !spell_goes_on(self, until_ns)))
            break;
        PyObject *lane = spell_event_lane(self, &events[n]);
        Py_XINCREF(lane); /* whoever executes may end it */
        int result = lane == NULL ? -1 : spell_lane(self, events[n].data.fd, lane, until_ns);
        Py_XDECREF(lane);
        if (result < 0)
            return -1;
    }
    if (spell_hand_over(self, events + n, count - n) < 0)
        return -1;
    return posts_deliver(&self->posts, self->unsent);
}

static int spell_run(Spell *self) {
    struct epoll_event events[MAX_EVENTS];
    while (self->executed < self->limits.most && self->found == NULL &&
           PyList_Size(self->ready) == 0 && PyList_Size(self->unsent) == 0) {
        int count = spell_wait(self, events);
        if (count <= 0)
            break;
        self->came = 1;
        if (spell_events(self, events, count) < 0)
            return -1;
    }
    return 0;
}

static int limits_read(Limits *self, PyObject *from) {
    unsigned long long moment, crowded, most, together, quick, room, soon;
    if (!PyTuple_Check(from)) {
        PyErr_SetString(PyExc_TypeError, "expected the limits as a tuple");
        return -1;
    }
    if (!PyArg_ParseTuple(from, "KKKKKKK", &moment, &crowded, &most, &together, &quick, &room,
                          &soon))
        return -1;
    *self = (Limits){moment, crowded, most, together, quick, room, soon};
    return 0;
}

/* spell(epoll_fd, lanes, forms, limits) */
PyObject *express_spell(Express *express, PyObject *const *args, Py_ssize_t count) {
    if (count != 4 || !PyDict_Check(args[1]) || !PyDict_Check(args[2])) {
        PyErr_SetString(PyExc_TypeError, "spell takes a descriptor, two dicts and the limits");
        return NULL;
    }
    Spell self = {.express = express, .lanes = args[1], .forms = args[2]};
    long epoll_fd = PyLong_AsLong(args[0]);
    if ((epoll_fd == -1 && PyErr_Occurred()) || limits_read(&self.limits, args[3]) < 0)
        return NULL;
    self.epoll_fd = (int)epoll_fd;
    self.ready = PyList_New(0);
    self.unsent = PyList_New(0);
    PyObject *result = NULL;
    if (self.ready != NULL && self.unsent != NULL && spell_run(&self) == 0)
        result = Py_BuildValue("KOOOOO", (unsigned long long)self.executed,
                               self.came ? Py_True : Py_False, self.ready,
                               self.found != NULL ? self.found : Py_None, self.unsent,
                               self.crowded ? Py_True : Py_False);
    posts_clear(&self.posts); /* after an error */
    Py_XDECREF(self.ready);
    Py_XDECREF(self.unsent);
    Py_XDECREF(self.found);
    return result;
}
