/* A small libcuda.so.1 that does what $FAKE_CUDA says: nothing (one device), "none", "crash", "hang". */

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is(const char *word) {
    const char *said = getenv("FAKE_CUDA");
    return said != NULL && strcmp(said, word) == 0;
}

int cuInit(unsigned flags) {
    (void)flags;
    if (is("crash")) abort();
    while (is("hang")) pause();
    return is("none") ? 100 : 0; /* CUDA_ERROR_NO_DEVICE */
}
int cuDriverGetVersion(int *to) { *to = 13010; return 0; }
int cuDeviceGetCount(int *to) { *to = 1; return 0; }
int cuDeviceGet(int *to, int ordinal) { *to = ordinal; return 0; }
int cuDeviceGetName(char *to, int size, int device) { (void)device; strncpy(to, "Fake L4", (size_t)size); return 0; }
int cuDeviceTotalMem_v2(size_t *to, int device) { (void)device; *to = (size_t)23034 << 20; return 0; }
int cuDeviceGetAttribute(int *to, int attribute, int device) {
    (void)device;
    *to = attribute == 75 ? 8 : 9; /* the compute capability's major, its minor */
    return 0;
}
