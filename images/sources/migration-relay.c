/* migration-relay HOST PORT: connects, and carries standard input to the peer and the peer to standard output.
 *
 * `xl migrate -s '' DOMAIN 'exec migration-relay ADDRESS PORT'` hands its stream to this instead of ssh. What goes out
 * (the guest's memory) is spliced: it never passes through user space. Each direction ends on its own: the end of
 * standard input is told to the peer, and its answer is still read. At the end it says `migration-relay: sent N bytes`
 * on standard error, where xl passes it on. Exit: 0 when both have ended, 1 on an error of the stream, 2 on wrong
 * arguments or when nobody answers.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHUNK (1 << 20)

static unsigned long long sent;

static int wait_for(int fd, short what)
{
    struct pollfd one = {.fd = fd, .events = what};
    return poll(&one, 1, -1) < 0 && errno != EINTR ? -1 : 0;
}

static int write_all(int fd, const char *data, ssize_t size)
{
    while (size > 0) {
        ssize_t written = write(fd, data, (size_t)size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0 && errno == EAGAIN && wait_for(fd, POLLOUT) == 0)
            continue;
        if (written <= 0)
            return -1;
        data += written;
        size -= written;
    }
    return 0;
}

static int copy_all(int from, int to)
{
    static char buffer[65536];
    for (;;) {
        ssize_t got = read(from, buffer, sizeof buffer);
        if (got == 0)
            return 0;
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EAGAIN && wait_for(from, POLLIN) == 0)
            continue;
        if (got < 0 || write_all(to, buffer, got) < 0)
            return -1;
        sent += (unsigned long long)got;
    }
}

static int splice_all(int from, int to)
{
    for (;;) {
        ssize_t moved = splice(from, NULL, to, NULL, CHUNK, SPLICE_F_MOVE | SPLICE_F_MORE);
        if (moved == 0)
            return 0;
        if (moved > 0)
            sent += (unsigned long long)moved;
        if (moved > 0 || errno == EINTR)
            continue;
        if (errno == EINVAL) /* standard input is no pipe */
            return copy_all(from, to);
        if (errno != EAGAIN || wait_for(from, POLLIN) < 0 || wait_for(to, POLLOUT) < 0)
            return -1;
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_in peer = {.sin_family = AF_INET};
    char *end = NULL;
    long port = argc == 3 ? strtol(argv[2], &end, 10) : 0;
    if (argc != 3 || *argv[2] == '\0' || *end != '\0' || port < 1 || port > 65535
        || inet_pton(AF_INET, argv[1], &peer.sin_addr) != 1) {
        fprintf(stderr, "usage: migration-relay IPV4-ADDRESS PORT\n");
        return 2;
    }
    peer.sin_port = htons((unsigned short)port);
    signal(SIGPIPE, SIG_IGN);
    int channel = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (channel < 0 || connect(channel, (struct sockaddr *)&peer, sizeof peer) < 0) {
        fprintf(stderr, "migration-relay: %s port %ld: %s\n", argv[1], port, strerror(errno));
        return 2;
    }
    int on = 1;
    setsockopt(channel, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(STDIN_FILENO, F_SETPIPE_SZ, CHUNK); /* fails harmlessly when it is no pipe */

    pid_t reader = fork();
    if (reader < 0) {
        fprintf(stderr, "migration-relay: fork: %s\n", strerror(errno));
        return 1;
    }
    if (reader == 0) {
        close(STDIN_FILENO);
        _exit(copy_all(channel, STDOUT_FILENO) < 0);
    }
    close(STDOUT_FILENO); /* only the reader holds it, so its end is seen by whom we serve */
    int failed = splice_all(STDIN_FILENO, channel) < 0;
    if (failed)
        fprintf(stderr, "migration-relay: sending: %s\n", strerror(errno));
    fprintf(stderr, "migration-relay: sent %llu bytes\n", sent);
    shutdown(channel, SHUT_WR);
    int status = 0;
    while (waitpid(reader, &status, 0) < 0 && errno == EINTR)
        ;
    return failed || status != 0;
}
