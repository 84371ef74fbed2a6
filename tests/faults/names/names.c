/* Names that nobody resolves, while a file is there: preloaded into a daemon of the tests.
 *
 * NAMES_AWAY in the environment is that file. Addresses in numbers are as ever. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <stdlib.h>
#include <unistd.h>

typedef int resolver(const char *, const char *, const struct addrinfo *, struct addrinfo **);

static int is_number(const char *node)
{
    unsigned char address[sizeof(struct in6_addr)];

    return inet_pton(AF_INET, node, address) == 1 || inet_pton(AF_INET6, node, address) == 1;
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                struct addrinfo **found)
{
    const char *away = getenv("NAMES_AWAY");
    resolver *real = (resolver *)dlsym(RTLD_NEXT, "getaddrinfo");

    if (node != NULL && away != NULL && !is_number(node) && access(away, F_OK) == 0)
        return EAI_AGAIN; /* what there is to say when no name server answers */
    return real(node, service, hints, found);
}
