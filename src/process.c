#define _GNU_SOURCE /* dladdr, RTLD_NOLOAD */
#include "process.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>

static pthread_once_t watch_once = PTHREAD_ONCE_INIT;
static unsigned long generation = 1;

static void in_child(void)
{
    ++generation;
}

static void watch_forks(void)
{
    osb_stay_loaded();
    pthread_atfork(NULL, NULL, in_child);
}

unsigned long osb_process(void)
{
    pthread_once(&watch_once, watch_forks);
    return generation;
}

void osb_stay_loaded(void)
{
#if defined(RTLD_NODELETE) && defined(RTLD_NOLOAD)
    Dl_info info;

    if (dladdr((void *)&generation, &info) && info.dli_fname)
        dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
#endif
}
