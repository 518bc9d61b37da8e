/*
 * host-identity: tells dom0 who it is, when its machine was started from the memory of another one.
 *
 * Reads messages from the machine's port "lab.identity": lines of KEY=VALUE, ended by an empty line. Two keys are
 * obeyed here, at once:
 *   LAB_TIME=SECONDS.MICROSECONDS   sets the wall clock, which stood still since the memory was saved
 *   LAB_SEED=TEXT                   is stirred into the kernel's random numbers, which would be alike otherwise
 * A message with a LAB_NAME then goes to /usr/bin/host-identify on its standard input. The answer is "ok\n" or
 * "failed STATUS\n".
 *
 * Goes to the background once it listens. Ends with status 1 where the machine has no such port.
 */
#include <dirent.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PORTS "/sys/class/virtio-ports"
#define LONGEST 8192
#define MESSAGE "/run/lab-identity"

static int open_port(void)
{
    DIR *ports = opendir(PORTS);
    struct dirent *entry;
    int port = -1;

    while (ports && port < 0 && (entry = readdir(ports))) {
        char path[512], name[64] = "";
        FILE *file;

        snprintf(path, sizeof path, PORTS "/%s/name", entry->d_name);
        if (entry->d_name[0] == '.' || !(file = fopen(path, "r")))
            continue;
        if (fgets(name, sizeof name, file) && !strcmp(name, "lab.identity\n")) {
            snprintf(path, sizeof path, "/dev/%s", entry->d_name);
            port = open(path, O_RDWR | O_CLOEXEC);
        }
        fclose(file);
    }
    if (ports)
        closedir(ports);
    return port;
}

static void set_clock(const char *text)
{
    char *rest;
    struct timespec now = { .tv_sec = strtoll(text, &rest, 10) };

    if (*rest == '.')
        now.tv_nsec = strtol(rest + 1, NULL, 10) * 1000;
    if (now.tv_sec > 0 && now.tv_nsec >= 0 && now.tv_nsec < 1000000000)
        clock_settime(CLOCK_REALTIME, &now);
}

static void stir(const char *text, size_t size)
{
    struct { struct rand_pool_info info; char data[256]; } seed = { .info = { 0, 0 } };
    int urandom = open("/dev/urandom", O_RDWR | O_CLOEXEC);

    if (urandom < 0)
        return;
    seed.info.buf_size = size < sizeof seed.data ? (int)size : (int)sizeof seed.data;
    seed.info.entropy_count = seed.info.buf_size * 4;     /* the text is hexadecimal */
    memcpy(seed.info.buf, text, (size_t)seed.info.buf_size);
    ioctl(urandom, RNDADDENTROPY, &seed);
    ioctl(urandom, RNDRESEEDCRNG);
    close(urandom);
}

static int identify(const char *message, size_t size)
{
    int file = open(MESSAGE, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), status = -1;
    pid_t child;

    if (file < 0 || write(file, message, size) != (ssize_t)size || lseek(file, 0, SEEK_SET))
        return -1;
    child = fork();
    if (child == 0) {
        int null = open("/dev/null", O_RDWR);

        dup2(file, 0);
        dup2(null, 1);
        dup2(null, 2);
        execl("/usr/bin/host-identify", "host-identify", (char *)NULL);
        _exit(127);
    }
    close(file);
    if (child < 0 || waitpid(child, &status, 0) != child)
        return -1;
    unlink(MESSAGE);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Obeys one whole message; returns the status to answer. */
static int obey(const char *message, size_t size)
{
    const char *line = message, *end;
    int named = 0;

    for (; line < message + size && (end = strchr(line, '\n')); line = end + 1) {
        if (!strncmp(line, "LAB_TIME=", 9))
            set_clock(line + 9);
        else if (!strncmp(line, "LAB_SEED=", 9))
            stir(line + 9, (size_t)(end - line - 9));
        else if (!strncmp(line, "LAB_NAME=", 9))
            named = 1;
    }
    return named ? identify(message, size) : 0;
}

int main(void)
{
    static char buffer[LONGEST + 1];
    size_t size = 0;
    int port = open_port();

    if (port < 0)
        return 1;
    if (daemon(0, 0))
        return 1;
    for (;;) {
        ssize_t n = read(port, buffer + size, LONGEST - size);
        char *end;

        if (n <= 0) {
            size = 0;
            sleep(1);                /* nobody is at the other end */
            continue;
        }
        size += (size_t)n;
        buffer[size] = 0;
        if ((end = strstr(buffer, "\n\n"))) {
            int status = obey(buffer, (size_t)(end + 1 - buffer));

            if (status)
                dprintf(port, "failed %d\n", status);
            else
                dprintf(port, "ok\n");
            size = 0;
        } else if (size == LONGEST) {
            size = 0;                /* no message of ours is that long */
        }
    }
}
