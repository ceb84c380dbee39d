/* A small libnvidia-ml.so.1 that says what a file says: $FAKE_NVML, lines of "KEY NUMBER".

   A figure that the file does not name is not supported. `lost 1`: the device has fallen off the bus.
   `hang 1`: no call returns. `xid 79`: told once for each new `serial`. `pid N`: a process of ours.
   With -DOLD the library is one that knows names alone: every other symbol is missing. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, TIMEOUT = 10, LOST = 15 };

static long value(const char *key, long otherwise) {
    const char *path = getenv("FAKE_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    char name[64];
    long number;
    if (file == NULL) return otherwise;
    while (fscanf(file, "%63s %ld", name, &number) == 2) {
        if (strcmp(name, key) == 0) {
            fclose(file);
            return number;
        }
    }
    fclose(file);
    return otherwise;
}

static int device(void) {
    while (value("hang", 0)) usleep(10000);
    return value("lost", 0) ? LOST : SUCCESS;
}

static int figure(const char *key, unsigned *to) {
    long found = value(key, -1);
    if (device() != SUCCESS) return LOST;
    if (found < 0) return NOT_SUPPORTED;
    *to = (unsigned)found;
    return SUCCESS;
}

int nvmlInit_v2(void) { return value("driver", 1) ? SUCCESS : DRIVER_NOT_LOADED; }
int nvmlInitWithFlags(unsigned flags) { (void)flags; return nvmlInit_v2(); }
const char *nvmlErrorString(int code) { return code == LOST ? "GPU is lost" : "no"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = (unsigned)value("count", 1); return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **to) { *to = (void *)(size_t)(index + 1); return SUCCESS; }
int nvmlDeviceGetName(void *of, char *to, unsigned size) {
    (void)of;
    snprintf(to, size, "Fake L4");
    return device();
}

#ifndef OLD
struct memory { unsigned long long total, free, used; };
struct use { unsigned gpu, memory; };
struct process { unsigned pid; unsigned long long memory; unsigned gpu_instance, compute_instance; };
struct event { void *device; unsigned long long type, data; unsigned gpu_instance, compute_instance; };

int nvmlDeviceGetIndex(void *of, unsigned *to) { *to = (unsigned)(size_t)of - 1; return device(); }
int nvmlDeviceGetUUID(void *of, char *to, unsigned size) {
    (void)of;
    snprintf(to, size, "GPU-fake");
    return device();
}
int nvmlDeviceGetMemoryInfo(void *of, struct memory *to) {
    (void)of;
    long mib = value("memory_mib", -1);
    if (device() != SUCCESS) return LOST;
    if (mib < 0) return NOT_SUPPORTED;
    to->total = (unsigned long long)mib << 20;
    to->used = (unsigned long long)value("used_mib", 0) << 20;
    to->free = to->total - to->used;
    return SUCCESS;
}
int nvmlDeviceGetUtilizationRates(void *of, struct use *to) { (void)of; to->memory = 0; return figure("use", &to->gpu); }
int nvmlDeviceGetTemperature(void *of, int kind, unsigned *to) { (void)of; (void)kind; return figure("celsius", to); }
int nvmlDeviceGetPowerUsage(void *of, unsigned *to) { (void)of; return figure("milliwatts", to); }
int nvmlDeviceGetEnforcedPowerLimit(void *of, unsigned *to) { (void)of; return figure("limit_milliwatts", to); }
int nvmlDeviceGetClockInfo(void *of, int kind, unsigned *to) { (void)of; return figure(kind == 1 ? "sm_mhz" : "memory_mhz", to); }
int nvmlDeviceGetCurrPcieLinkGeneration(void *of, unsigned *to) { (void)of; return figure("generation", to); }
int nvmlDeviceGetMaxPcieLinkGeneration(void *of, unsigned *to) { (void)of; return figure("generation_max", to); }
int nvmlDeviceGetCurrPcieLinkWidth(void *of, unsigned *to) { (void)of; return figure("width", to); }
int nvmlDeviceGetMaxPcieLinkWidth(void *of, unsigned *to) { (void)of; return figure("width_max", to); }
int nvmlDeviceGetMigMode(void *of, unsigned *to, unsigned *pending) { (void)of; *pending = 0; return figure("mig", to); }
int nvmlDeviceGetCudaComputeCapability(void *of, int *major, int *minor) {
    unsigned both = 0;
    int code = figure("capability", &both);
    (void)of;
    *major = (int)both / 10;
    *minor = (int)both % 10;
    return code;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void *of, unsigned long long *to) {
    unsigned bits = 0;
    int code = figure("throttles", &bits);
    (void)of;
    *to = bits;
    return code;
}
int nvmlDeviceGetTotalEccErrors(void *of, int kind, int counter, unsigned long long *to) {
    unsigned count = 0;
    int code = figure(kind == 0 ? "ecc_corrected" : "ecc_uncorrected", &count);
    (void)of;
    (void)counter;
    *to = count;
    return code;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *of, unsigned *count, struct process *to) {
    long pid = value("pid", -1);
    (void)of;
    if (device() != SUCCESS) return LOST;
    if (pid < 0) return NOT_SUPPORTED;
    if (pid == 0) { *count = 0; return SUCCESS; }
    if (*count < 1 || to == NULL) { *count = 1; return INSUFFICIENT_SIZE; }
    *count = 1;
    to->pid = (unsigned)pid;
    to->memory = (unsigned long long)value("pid_mib", 1) << 20;
    to->gpu_instance = to->compute_instance = ~0u;
    return SUCCESS;
}
int nvmlEventSetCreate(void **to) { *to = (void *)1; return SUCCESS; }
int nvmlDeviceRegisterEvents(void *of, unsigned long long types, void *set) { (void)of; (void)types; (void)set; return SUCCESS; }
int nvmlEventSetWait_v2(void *set, struct event *to, unsigned timeout_ms) {
    static long told = 0;
    long serial = value("serial", 0);
    (void)set;
    (void)timeout_ms;
    if (serial <= told) return TIMEOUT;
    told = serial;
    to->device = (void *)1;
    to->type = 8; /* nvmlEventTypeXidCriticalError */
    to->data = (unsigned long long)value("xid", 79);
    return SUCCESS;
}
#endif
