/* guest-comms: lets two guests talk to each other, by the two means Xen has: event channels and grants.
 *
 *   port DOMAIN          offer an event channel to DOMAIN; prints "port N" and counts its rings in /events
 *   ring DOMAIN PORT     bind to a port that DOMAIN offers, and ring it
 *   page DOMAIN WORD     grant DOMAIN a page with WORD in it; prints "page REFERENCE"
 *   map DOMAIN REFERENCE WORD   map a page that DOMAIN grants, print "found WORD", and write WORD into it
 *
 * port and page leave a process behind that holds what is offered: end it with killall guest-comms.
 * Exit status 0: done; 1: the kernel or Xen said no ("denied CALL: ERROR"); 2: wrong usage.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

typedef uint16_t domid_t;
typedef uint32_t grant_ref_t;
#include <xen/evtchn.h>
#include <xen/gntalloc.h>
#include <xen/gntdev.h>

#define PAGE 4096
#define EVENTS "/events"
#define GRANTED "/granted"

static void no(const char *call)
{
    printf("denied %s: %s\n", call, strerror(errno));
    exit(1);
}

static int opened(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        no(path);
    return fd;
}

static unsigned int number(const char *text)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (!*text || *end || value > 0xffffffffu) {
        fprintf(stderr, "%s is not a number\n", text);
        exit(2);
    }
    return (unsigned int)value;
}

static void keep(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        no(path);
    close(fd);
}

/* Whoever waits for our output must not wait for the process that stays. */
static void stay(void)
{
    fflush(stdout);
    pid_t child = fork();
    if (child < 0)
        no("fork");
    if (child > 0)
        _exit(0);
    setsid();
    for (int fd = 0; fd < 3; fd++)
        close(fd);
}

static void offer_port(unsigned int domain)
{
    int fd = opened("/dev/xen/evtchn");
    struct ioctl_evtchn_bind_unbound_port wish = {.remote_domain = domain};
    int port = ioctl(fd, IOCTL_EVTCHN_BIND_UNBOUND_PORT, &wish);
    if (port < 0)
        no("event channel");
    keep(EVENTS, "0\n");
    printf("port %d\n", port);
    stay();
    for (unsigned int rings = 1;; rings++) {
        uint32_t rung;
        char line[16];
        if (read(fd, &rung, sizeof rung) != sizeof rung || write(fd, &rung, sizeof rung) != sizeof rung)
            _exit(1);
        snprintf(line, sizeof line, "%u\n", rings);
        keep(EVENTS, line);
    }
}

static void ring(unsigned int domain, unsigned int port)
{
    int fd = opened("/dev/xen/evtchn");
    struct ioctl_evtchn_bind_interdomain wish = {.remote_domain = domain, .remote_port = port};
    int ours = ioctl(fd, IOCTL_EVTCHN_BIND_INTERDOMAIN, &wish);
    if (ours < 0)
        no("event channel");
    struct ioctl_evtchn_notify bell = {.port = (unsigned int)ours};
    if (ioctl(fd, IOCTL_EVTCHN_NOTIFY, &bell) < 0)
        no("ring");
    printf("rung\n");
}

static void grant_page(unsigned int domain, const char *word)
{
    int fd = opened("/dev/xen/gntalloc"), copy;
    struct ioctl_gntalloc_alloc_gref wish = {.domid = (domid_t)domain, .flags = GNTALLOC_FLAG_WRITABLE, .count = 1};
    if (ioctl(fd, IOCTL_GNTALLOC_ALLOC_GREF, &wish) < 0)
        no("grant");
    char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)wish.index);
    if (page == MAP_FAILED)
        no("page");
    snprintf(page, PAGE, "%s", word);
    printf("page %u\n", wish.gref_ids[0]);
    stay();
    for (;; usleep(100000)) { /* what the other guest has written, for people to read */
        copy = open(GRANTED, O_WRONLY | O_CREAT | O_TRUNC, 0644);
        if (copy < 0 || write(copy, page, strnlen(page, 64)) < 0)
            _exit(1);
        close(copy);
    }
}

static void map_page(unsigned int domain, unsigned int reference, const char *word)
{
    int fd = opened("/dev/xen/gntdev");
    struct ioctl_gntdev_map_grant_ref wish = {.count = 1, .refs = {{.domid = domain, .ref = reference}}};
    if (ioctl(fd, IOCTL_GNTDEV_MAP_GRANT_REF, &wish) < 0)
        no("reference");
    char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)wish.index);
    if (page == MAP_FAILED)
        no("map");
    printf("found %.64s\n", page);
    snprintf(page, PAGE, "%s", word);
}

int main(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";
    if (strcmp(verb, "port") == 0 && argc == 3)
        offer_port(number(argv[2]));
    else if (strcmp(verb, "ring") == 0 && argc == 4)
        ring(number(argv[2]), number(argv[3]));
    else if (strcmp(verb, "page") == 0 && argc == 4)
        grant_page(number(argv[2]), argv[3]);
    else if (strcmp(verb, "map") == 0 && argc == 5)
        map_page(number(argv[2]), number(argv[3]), argv[4]);
    else
        return 2;
    return 0;
}
