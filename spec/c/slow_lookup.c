/* Preloaded: looking up a host name that begins with "slow" takes a quarter of a minute. All other names are the system's. */

#define _GNU_SOURCE

#include <dlfcn.h>
#include <netdb.h>
#include <string.h>
#include <unistd.h>

#define LOOKUP_SECONDS 15

typedef int lookup(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
    lookup *original;

    if (name && strncmp(name, "slow", 4) == 0) {
        sleep(LOOKUP_SECONDS);
        return EAI_AGAIN;
    }
    *(void **)&original = dlsym(RTLD_NEXT, "getaddrinfo");
    return original ? original(name, service, hints, found) : EAI_SYSTEM;
}
