/* posts.c, for spell.c and relay.c. */

#ifndef SUPERBRAIN_POSTS_H
#define SUPERBRAIN_POSTS_H

#include "loop.h"

enum { MAX_POSTS = 128 };

typedef struct {
    int fd;
    PyObject *written; /* owned */
} Post;

typedef struct {
    int count;
    Post posts[MAX_POSTS];
} Posts;

void posts_add(Posts *self, int fd, PyObject *written);
void posts_clear(Posts *self);
int posts_deliver(Posts *self, PyObject *unsent);

#endif
