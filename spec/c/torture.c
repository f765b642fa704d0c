/*
 * Runs a Lua script again and again, and lets another allocation fail each time: of the core (alloc.h), of libcurl, or of Lua; one
 * alone, or one and all after it. Every run must end in time, without a crash, and leave neither memory nor a descriptor behind;
 * the script itself says which results are wrong.
 *
 *     torture [options] script.lua [argument ...]
 *       --core, --curl, --lua   whose allocations fail; without any, the script runs once and nothing fails by itself
 *       --for-good              all allocations after the failing one fail too
 *       --only=N                the Nth allocation only, with the script's output
 *       --runs=N                N allocations only, evenly distributed
 *       --seconds=N             for one run (default: 30)
 *
 * The script runs in a child for each run, with opensandbox.core linked in, and with a table `torture`:
 *       arm(), disarm()         allocations are counted, and fail, between these; disarm returns their number and whether one failed
 *       problem(text)           reports a wrong result
 *       outcome(n)              counts a call whose result was right (1), or that reported an error (0)
 *       fork(), wait(pid)       as in C; wait returns the exit status
 *       fail_epoll(n)           the nth descriptor that is added to an epoll set from now on cannot be added
 *       delay_lookups(seconds)  lookups of names that begin with "slow" take that long
 *
 * To be built with the Lua that is chosen, and with sanitizers for more.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <curl/curl.h>
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "alloc.h"

int luaopen_opensandbox_core(lua_State *L);

/* What a child reports to its parent, in memory that they share. */
typedef struct report {
    long allocations; /* that were counted */
    int failed;       /* an allocation has failed */
    int finished;
    int lookups_are_left; /* libcurl never frees a little of what a lookup holds that is left behind */
    long outcomes[2]; /* calls that reported an error, and that had a result */
    long live_core, live_curl, live_lua, descriptors; /* left at the end */
    char problem[512];
} report;

enum { MAX_JOBS = 4 }; /* runs at the same time: they wait for the network most of the time */

typedef enum allocator { NONE, CORE, CURL_LIBRARY, LUA } allocator;

static report *result; /* of this child */
static allocator failing;
static int for_good;
static long fail_at; /* 0: none */
static int armed;

/* Returns 1 when this allocation must fail. A libcurl thread that looks up a name allocates too, so numbers may differ a little. */
static int fails(allocator whose)
{
    long number;

    if (whose != failing || !armed)
        return 0;
    number = __atomic_add_fetch(&result->allocations, 1, __ATOMIC_RELAXED);
    if (fail_at == 0 || number < fail_at)
        return 0;
    /* Lua collects garbage and tries again: that must fail, too. */
    if (!for_good && number > fail_at + (whose == LUA ? 1 : 0))
        return 0;
    result->failed = 1;
    return 1;
}

static void count(long *live, long change)
{
    __atomic_add_fetch(live, change, __ATOMIC_RELAXED);
}

#define ALLOCATOR(name, whose, live)                            \
    static void *name##_malloc(size_t size)                     \
    {                                                           \
        void *block = fails(whose) ? NULL : malloc(size);       \
        count(live, block != NULL);                             \
        return block;                                           \
    }                                                           \
    static void *name##_calloc(size_t number, size_t size)      \
    {                                                           \
        void *block = fails(whose) ? NULL : calloc(number, size); \
        count(live, block != NULL);                             \
        return block;                                           \
    }                                                           \
    static void *name##_realloc(void *old, size_t size)         \
    {                                                           \
        void *block = fails(whose) ? NULL : realloc(old, size); \
        count(live, block != NULL && old == NULL);              \
        return block;                                           \
    }                                                           \
    static void name##_free(void *block)                        \
    {                                                           \
        count(live, block ? -1 : 0);                            \
        free(block);                                            \
    }

ALLOCATOR(of_core, CORE, &result->live_core)
ALLOCATOR(of_curl, CURL_LIBRARY, &result->live_curl)

static char *of_curl_strdup(const char *text)
{
    char *copy = of_curl_malloc(strlen(text) + 1);
    return copy ? strcpy(copy, text) : NULL;
}

static void *lua_allocate(void *unused, void *old, size_t old_size, size_t size)
{
    void *block;

    (void)unused;
    if (size == 0) {
        count(&result->live_lua, old ? -1 : 0);
        free(old);
        return NULL;
    }
    /* Lua relies on shrinking. */
    if ((!old || size > old_size) && fails(LUA))
        return NULL;
    block = realloc(old, size);
    count(&result->live_lua, block != NULL && old == NULL);
    return block;
}

/* Calls that fail or take their time, in place of the C library's. */

static int failing_epoll;
static double lookup_delay;

int epoll_ctl(int set, int operation, int fd, struct epoll_event *event)
{
    static int (*original)(int, int, int, struct epoll_event *);

    if (!original)
        *(void **)&original = dlsym(RTLD_NEXT, "epoll_ctl");
    if (operation == EPOLL_CTL_ADD && failing_epoll > 0 && --failing_epoll == 0) {
        errno = ENOSPC;
        return -1;
    }
    return original(set, operation, fd, event);
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
    static int (*original)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    struct timespec delay;

    if (!original)
        *(void **)&original = dlsym(RTLD_NEXT, "getaddrinfo");
    if (!name || strncmp(name, "slow", 4) != 0)
        return original(name, service, hints, found);
    delay.tv_sec = (time_t)lookup_delay;
    delay.tv_nsec = (long)((lookup_delay - (double)delay.tv_sec) * 1e9);
    nanosleep(&delay, NULL);
    return EAI_AGAIN;
}

/* The script's table. */

static int lua_arm(lua_State *L)
{
    (void)L;
    armed = 1;
    return 0;
}

static int lua_disarm(lua_State *L)
{
    armed = 0;
    lua_pushinteger(L, (lua_Integer)result->allocations);
    lua_pushboolean(L, result->failed);
    return 2;
}

static int lua_problem(lua_State *L)
{
    const char *text = luaL_checkstring(L, 1);
    size_t used = strlen(result->problem);

    snprintf(result->problem + used, sizeof result->problem - used, "%s%s", used ? "; " : "", text);
    return 0;
}

static int lua_outcome(lua_State *L)
{
    ++result->outcomes[luaL_checkinteger(L, 1) == 1];
    return 0;
}

static int lua_fork(lua_State *L)
{
    static report unused;
    pid_t pid;

    fflush(NULL);
    pid = fork();
    if (pid == 0)
        result = &unused; /* what the child of the script does is not counted */
    lua_pushinteger(L, pid);
    return 1;
}

static int lua_wait(lua_State *L)
{
    int status = 0;

    waitpid((pid_t)luaL_checkinteger(L, 1), &status, 0);
    lua_pushinteger(L, WIFEXITED(status) ? WEXITSTATUS(status) : 128);
    return 1;
}

static int lua_fail_epoll(lua_State *L)
{
    failing_epoll = (int)luaL_checkinteger(L, 1);
    return 0;
}

static int lua_delay_lookups(lua_State *L)
{
    lookup_delay = luaL_checknumber(L, 1);
    result->lookups_are_left = 1;
    return 0;
}

static long descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    long number = 0;

    while (directory && readdir(directory))
        ++number;
    if (directory)
        closedir(directory);
    return number;
}

static void open_table(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "arm", lua_arm }, { "disarm", lua_disarm }, { "problem", lua_problem }, { "outcome", lua_outcome },
        { "fork", lua_fork }, { "wait", lua_wait }, { "fail_epoll", lua_fail_epoll },
        { "delay_lookups", lua_delay_lookups }, { NULL, NULL }
    };
    const luaL_Reg *entry;

    lua_newtable(L);
    for (entry = functions; entry->name; ++entry) {
        lua_pushcfunction(L, entry->func);
        lua_setfield(L, -2, entry->name);
    }
    lua_setglobal(L, "torture");
}

static int prepare(lua_State *L)
{
    char **arguments = lua_touserdata(L, 1);
    int i;

    luaL_openlibs(L);
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "preload");
    lua_pushcfunction(L, luaopen_opensandbox_core);
    lua_setfield(L, -2, "opensandbox.core");
    open_table(L);
    lua_newtable(L);
    for (i = 0; arguments[i]; ++i) {
        lua_pushstring(L, arguments[i]);
        lua_rawseti(L, -2, i);
    }
    lua_setglobal(L, "arg");
    return 0;
}

static void run_script(char **arguments)
{
    static const osb_allocator of_the_core = { of_core_malloc, of_core_calloc, of_core_realloc, of_core_free };
    long before = descriptors();
    lua_State *L;

    osb_set_allocator(&of_the_core);
    if (curl_global_init_mem(CURL_GLOBAL_DEFAULT, of_curl_malloc, of_curl_free, of_curl_realloc, of_curl_strdup,
            of_curl_calloc) != CURLE_OK)
        abort();
    result->live_curl = 0;
    L = lua_newstate(lua_allocate, NULL);
    lua_pushcfunction(L, prepare);
    lua_pushlightuserdata(L, arguments);
    if (lua_pcall(L, 1, 0, 0) || luaL_loadfile(L, arguments[0]) || lua_pcall(L, 0, 0, 0)) {
        const char *text = lua_tostring(L, -1);
        snprintf(result->problem, sizeof result->problem, "the script failed: %s", text ? text : "?");
    }
    armed = 0;
    lua_close(L);
    result->descriptors = descriptors() - before;
    result->finished = 1;
}

/* A child that runs the script. */
typedef struct job {
    pid_t pid; /* 0: none */
    long number;
    report *report;
} job;

static job jobs[MAX_JOBS];
static long outcomes[2]; /* of all runs */
static long seconds = 30;

/* Runs the script in a child; the allocation of that number fails. */
static void start(job *one, char **arguments, long number, int is_silent)
{
    memset(one->report, 0, sizeof *one->report);
    one->number = number;
    fflush(NULL);
    one->pid = fork();
    if (one->pid == 0) {
        result = one->report;
        fail_at = number;
        alarm((unsigned)seconds);
        if (is_silent && !freopen("/dev/null", "w", stdout))
            abort();
        run_script(arguments);
        exit(0);
    }
}

/* Waits for a child, and takes its job. Returns 0 when all was well, else 1 and prints what was wrong. */
static int finish(job **finished)
{
    const report *left;
    int status, i = 0;
    pid_t pid = wait(&status);

    while (jobs[i].pid != pid)
        ++i;
    jobs[i].pid = 0;
    *finished = &jobs[i];
    left = jobs[i].report;
    outcomes[0] += left->outcomes[0];
    outcomes[1] += left->outcomes[1];
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
        printf("  %ld: STALL after %ld s\n", jobs[i].number, seconds);
    else if (WIFSIGNALED(status))
        printf("  %ld: CRASH by signal %d\n", jobs[i].number, WTERMSIG(status));
    else if (WEXITSTATUS(status) || !left->finished)
        printf("  %ld: CRASH, exit status %d\n", jobs[i].number, WEXITSTATUS(status));
    else if (left->problem[0])
        printf("  %ld: WRONG: %s\n", jobs[i].number, left->problem);
    else if (left->live_core || (left->live_curl && !left->lookups_are_left) || left->live_lua || left->descriptors)
        printf("  %ld: LEAK: blocks of the core %ld, of libcurl %ld, of Lua %ld; descriptors %ld\n", jobs[i].number, left->live_core,
            left->live_curl, left->live_lua, left->descriptors);
    else
        return 0;
    fflush(stdout);
    return 1;
}

/* The value of an option "--name=number", or -1. */
static long number_option(const char *argument, const char *name)
{
    size_t length = strlen(name);

    return strncmp(argument, name, length) == 0 && argument[length] == '=' ? strtol(argument + length + 1, NULL, 10) : -1;
}

int main(int argc, char **argv)
{
    static const char *const names[] = { "nothing", "the core's", "libcurl's", "Lua's" };
    long only = -1, most = LONG_MAX, number, runs = 0, wrong, total, step;
    job *one = &jobs[0];
    int i, k, running = 0;

    for (i = 1; i < argc && strncmp(argv[i], "--", 2) == 0; ++i) {
        if (strcmp(argv[i], "--core") == 0)
            failing = CORE;
        else if (strcmp(argv[i], "--curl") == 0)
            failing = CURL_LIBRARY;
        else if (strcmp(argv[i], "--lua") == 0)
            failing = LUA;
        else if (strcmp(argv[i], "--for-good") == 0)
            for_good = 1;
        else if (number_option(argv[i], "--only") >= 0)
            only = number_option(argv[i], "--only");
        else if (number_option(argv[i], "--runs") > 0)
            most = number_option(argv[i], "--runs");
        else if (number_option(argv[i], "--seconds") > 0)
            seconds = number_option(argv[i], "--seconds");
        else
            i = argc;
    }
    if (i >= argc) {
        fprintf(stderr, "usage: torture [--core | --curl | --lua] [--for-good] [--only=N | --runs=N] [--seconds=N] script.lua ...\n");
        return 2;
    }
    for (k = 0; k < MAX_JOBS; ++k) {
        jobs[k].report = mmap(NULL, sizeof *result, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (jobs[k].report == MAP_FAILED)
            return 2;
    }
    /* First as it is: this must be right, and tells how many allocations there are. */
    start(one, argv + i, only > 0 ? only : 0, only < 0 && failing != NONE);
    wrong = finish(&one);
    if (wrong || only >= 0 || failing == NONE)
        return (int)wrong;
    total = one->report->allocations;
    outcomes[0] = outcomes[1] = 0;
    step = total > most ? (total + most - 1) / most : 1;
    for (number = 1; number <= total; number += step) {
        if (running == MAX_JOBS) {
            wrong += finish(&one);
            --running;
        } else {
            one = &jobs[running];
        }
        start(one, argv + i, number, 1);
        ++running;
        ++runs;
    }
    while (running-- > 0)
        wrong += finish(&one);
    printf("%s: %s %ld allocations %s: %ld runs, %ld wrong", argv[i], names[failing], total,
        for_good ? "fail for good" : "fail one at a time", runs, wrong);
    if (outcomes[0] + outcomes[1] > 0)
        printf("; calls: %ld right, %ld clean errors", outcomes[1], outcomes[0]);
    printf("\n");
    return wrong > 0;
}
