/*
 * guest-consoles DIRECTORY: the consoles of all guests of this host, on one pipe.
 *
 * Follows xenconsoled's logs in DIRECTORY without polling (inotify) and without a process per look, which is what
 * costs time on an emulated host. Runs at the far end of one ssh channel for as long as anybody listens.
 *
 * Out, per piece of a log:    "D FILE OFFSET LENGTH\n" and LENGTH bytes; offset and length 0 when it was removed
 * In, a line for a guest:     "W ID DOMAIN TEXT\n": types TEXT and a newline on the console of the domain
 * Out, the answer:            "A ID ok\n" or "A ID error MESSAGE\n"
 *
 * Ends when its input ends.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOST_FILES 256
#define MOST_KEPT (1 << 20)      /* of a log that was long before we came, its last MiB */
#define COALESCE_US 20000        /* a guest that boots prints line by line: send them together */

static struct { char name[128]; off_t at; ino_t inode; } logs[MOST_FILES];
static int log_count;
static const char *folder;

static void put(const char *data, size_t size)
{
    while (size) {
        ssize_t n = write(1, data, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            exit(0);             /* nobody listens any more */
        data += n;
        size -= n;
    }
}

static void say(const char *format, ...)
{
    char line[512];
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (n > 0)
        put(line, n < (int)sizeof line ? (size_t)n : sizeof line - 1);
}

/* Send what is new in a log. A log that is another file now, or shorter, begins again. */
static void forward(const char *name)
{
    char path[512], chunk[32768];
    struct stat st;
    int fd, i;

    if (strncmp(name, "guest-", 6) || strlen(name) >= sizeof logs[0].name)
        return;
    for (i = 0; i < log_count && strcmp(logs[i].name, name); i++)
        ;
    if (i == MOST_FILES)
        return;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        close(fd);
        return;
    }
    if (i == log_count) {
        log_count++;
        strcpy(logs[i].name, name);
        logs[i].inode = st.st_ino;
        logs[i].at = st.st_size > MOST_KEPT ? st.st_size - MOST_KEPT : 0;
    }
    if (logs[i].inode != st.st_ino || logs[i].at > st.st_size) {
        logs[i].inode = st.st_ino;
        logs[i].at = 0;
    }
    for (;;) {
        ssize_t n = pread(fd, chunk, sizeof chunk, logs[i].at);
        if (n <= 0)
            break;
        say("D %s %lld %zd\n", name, (long long)logs[i].at, n);
        put(chunk, n);
        logs[i].at += n;
    }
    close(fd);
}

/* A log was removed: its guest is history, and the next one of the same name begins at nothing. */
static void forget(const char *name)
{
    int i;

    for (i = 0; i < log_count; i++)
        if (!strcmp(logs[i].name, name)) {
            logs[i].inode = 0;
            logs[i].at = 0;
            say("D %s 0 0\n", name);
        }
}

static void forward_all(void)
{
    DIR *d = opendir(folder);
    struct dirent *e;

    while (d && (e = readdir(d)))
        forward(e->d_name);
    if (d)
        closedir(d);
}

/* One request to xenstore over /dev/xen/xenbus; the answer as a string of *size bytes, NULL on error. */
static char *xenstore(int bus, uint32_t type, const char *path, size_t *size)
{
    static char answer[4097];
    uint32_t head[4] = { type, 1, 0, strlen(path) + 1 };   /* type, request id, transaction, length */
    char request[1024];
    size_t got = 0;

    if (sizeof head + head[3] > sizeof request)
        return NULL;
    memcpy(request, head, sizeof head);
    memcpy(request + sizeof head, path, head[3]);
    if (write(bus, request, sizeof head + head[3]) < 0)
        return NULL;
    while (got < sizeof head) {
        ssize_t n = read(bus, (char *)head + got, sizeof head - got);
        if (n <= 0)
            return NULL;
        got += n;
    }
    if (head[3] >= sizeof answer)
        return NULL;
    for (got = 0; got < head[3];) {
        ssize_t n = read(bus, answer + got, head[3] - got);
        if (n <= 0)
            return NULL;
        got += n;
    }
    answer[got] = 0;
    *size = got;
    return head[0] == type ? answer : NULL;
}

enum { XS_DIRECTORY = 1, XS_READ = 2 };

/* The tty of a domain's console, by the domain's name; NULL when there is none. */
static const char *tty_of(int bus, const char *domain)
{
    static char ids[4097];
    char path[64], *answer;
    size_t size, at;

    answer = xenstore(bus, XS_DIRECTORY, "/local/domain", &size);
    if (!answer)
        return NULL;
    memcpy(ids, answer, size + 1);
    for (at = 0; at < size; at += strlen(ids + at) + 1) {
        size_t n;
        snprintf(path, sizeof path, "/local/domain/%.16s/name", ids + at);
        answer = xenstore(bus, XS_READ, path, &n);
        if (!answer || strcmp(answer, domain))
            continue;
        snprintf(path, sizeof path, "/local/domain/%.16s/console/tty", ids + at);
        answer = xenstore(bus, XS_READ, path, &n);
        return answer && *answer ? answer : NULL;
    }
    return NULL;
}

static void type_on(char *line)
{
    char *id = strtok(line, " "), *domain = strtok(NULL, " "), *text = strtok(NULL, "");
    const char *tty;
    int bus, fd;
    size_t size;

    if (!id || !domain || !text) {
        say("A ? error a line is W ID DOMAIN TEXT\n");
        return;
    }
    bus = open("/dev/xen/xenbus", O_RDWR | O_CLOEXEC);
    if (bus < 0) {
        say("A %.64s error xenstore: %s\n", id, strerror(errno));
        return;
    }
    tty = tty_of(bus, domain);
    close(bus);
    if (!tty) {
        say("A %.64s error no console of %.64s\n", id, domain);
        return;
    }
    fd = open(tty, O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    size = strlen(text);
    text[size++] = '\n';         /* in place of the line's own newline, which strtok has left out */
    if (fd < 0 || write(fd, text, size) != (ssize_t)size)
        say("A %.64s error %s: %s\n", id, tty, strerror(errno));
    else
        say("A %.64s ok\n", id);
    if (fd >= 0)
        close(fd);
}

/* Take whole lines off the input; false at its end. */
static int take_input(void)
{
    static char line[8192];
    static size_t kept;
    char *end;
    ssize_t n = read(0, line + kept, sizeof line - 1 - kept);

    if (n <= 0)
        return n < 0 && (errno == EINTR || errno == EAGAIN);
    kept += n;
    while ((end = memchr(line, '\n', kept))) {
        char one[sizeof line + 1];
        size_t size = end - line;

        memcpy(one, line, size);
        one[size] = 0;
        if (size > 2 && one[0] == 'W' && one[1] == ' ')
            type_on(one + 2);
        kept -= size + 1;
        memmove(line, end + 1, kept);
    }
    if (kept == sizeof line - 1)
        kept = 0;                /* a line too long to be one of ours */
    return 1;
}

int main(int argc, char **argv)
{
    char events[4096] __attribute__((aligned(8)));
    struct inotify_event *event;
    ssize_t got, at;
    struct pollfd wait[2] = { { 0, POLLIN, 0 }, { -1, POLLIN, 0 } };

    if (argc != 2) {
        fprintf(stderr, "usage: guest-consoles DIRECTORY\n");
        return 2;
    }
    folder = argv[1];
    wait[1].fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (wait[1].fd < 0 || inotify_add_watch(wait[1].fd, folder, IN_MODIFY | IN_CREATE | IN_MOVED_TO | IN_DELETE) < 0) {
        fprintf(stderr, "guest-consoles: %s: %s\n", folder, strerror(errno));
        return 1;
    }
    forward_all();
    for (;;) {
        if (poll(wait, 2, -1) < 0 && errno != EINTR)
            return 1;
        if (wait[0].revents && !take_input())
            return 0;
        if (wait[1].revents & POLLIN) {
            usleep(COALESCE_US);
            while ((got = read(wait[1].fd, events, sizeof events)) > 0)
                for (at = 0; at < got; at += sizeof *event + event->len) {
                    event = (void *)(events + at);
                    if (event->mask & IN_DELETE && event->len)
                        forget(event->name);
                }
            forward_all();       /* which logs have grown is found by looking: there are few */
        }
    }
}
