/*
 * stubdom-exec [FD r|w CONSOLE]... -- PROGRAM [ARGUMENT]...: run PROGRAM with raw consoles as certain descriptors.
 *
 * For QEMU in a stub domain, whose state is saved to and restored from a console:
 * - The state waits behind the console as it is opened, and nothing of it may pass through a line discipline that
 *   still changes bytes. So from opening the console to making it raw, nothing else runs on this domain's one CPU.
 * - QEMU empties whatever it saves to (ftruncate), and takes the refusal of a console for an error. There is no file
 *   in a stub domain that needs to be cut, so the call does nothing here and says that it went well.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

static void fail(const char *what)
{
    fprintf(stderr, "stubdom-exec: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void open_raw(int wanted, const char *mode, const char *path)
{
    struct termios line;
    int fd = open(path, (*mode == 'r' ? O_RDONLY : O_WRONLY) | O_NOCTTY);

    if (fd < 0 || tcgetattr(fd, &line))
        fail(path);
    cfmakeraw(&line);
    if (tcsetattr(fd, TCSANOW, &line))
        fail(path);
    if (fd == wanted)
        return;
    if (dup2(fd, wanted) < 0)
        fail(path);
    close(fd);
}

static void let_truncation_succeed(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ftruncate, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        fail("seccomp");
}

int main(int argc, char **argv)
{
    struct sched_param alone = {.sched_priority = 50}, shared = {.sched_priority = 0};
    int at = 1;

    sched_setscheduler(0, SCHED_FIFO, &alone);
    for (; at + 2 < argc && strcmp(argv[at], "--"); at += 3)
        open_raw(atoi(argv[at]), argv[at + 1], argv[at + 2]);
    sched_setscheduler(0, SCHED_OTHER, &shared);
    if (at + 1 >= argc || strcmp(argv[at], "--")) {
        fprintf(stderr, "usage: stubdom-exec [FD r|w CONSOLE]... -- PROGRAM [ARGUMENT]...\n");
        return 2;
    }
    let_truncation_succeed();
    execv(argv[at + 1], argv + at + 1);
    fail(argv[at + 1]);
}
