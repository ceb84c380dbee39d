/* A libcuda.so.1 that knows one GPU by name and nothing that could compute.
 *
 * $FAKE_CUDA says otherwise: "crash" or "hang" at the start, or numbers such as "init=100 count=0
 * major=12 minor=0 cuda=12080". tests/support/pretended_gpu.py compiles it.
 */

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *said(const char *word) {
    const char *all = getenv("FAKE_CUDA");
    return all == NULL ? NULL : strstr(all, word);
}

static int number(const char *word, int otherwise) {
    const char *found = said(word);
    return found == NULL ? otherwise : atoi(found + strlen(word));
}

int cuInit(unsigned flags) {
    (void)flags;
    if (said("crash")) abort();
    while (said("hang")) pause();
    return number("init=", 0);
}
int cuDriverGetVersion(int *to) { *to = number("cuda=", 13010); return 0; }
int cuDeviceGetCount(int *to) { *to = number("count=", 1); return 0; }
int cuDeviceGet(int *to, int ordinal) { *to = ordinal; return 0; }
int cuDeviceGetName(char *to, int size, int device) {
    (void)device;
    strncpy(to, "Pretended GPU", (size_t)size);
    return 0;
}
int cuDeviceTotalMem_v2(size_t *to, int device) { (void)device; *to = (size_t)16384 << 20; return 0; }
int cuDeviceGetAttribute(int *to, int attribute, int device) {
    (void)device;
    *to = attribute == 75 ? number("major=", 8) : attribute == 76 ? number("minor=", 9) : 0;
    return 0;
}
