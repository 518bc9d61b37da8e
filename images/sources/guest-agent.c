/* guest-agent CONSOLE: what the lab sees of a guest, and what it can do in it.
 *
 * Lines out:  LAB-GUEST ready uptime=S.MS mem_pages=N
 *             LAB-HB seq=N wall=S.MS mono=S.MS maxgap_ms=N mem=ok|bad          once a second
 *             LAB-OUT ID LINE    and    LAB-REPLY ID ok|error TEXT
 * Lines in:   LAB ID ping | reset | mem | gap | sh COMMAND
 *
 * A tick comes every 50 ms. The largest step of the wall clock between two ticks is the guest's own measure of how
 * long it stood still (a save or a migration does not show in the monotonic clock). Every tick rewrites one page of a
 * region filled with a pattern; a page that a migration lost or mixed up is found by its content or its generation.
 * A smaller area churns: every tick rewrites several of its pages with a number that counts up, so that all of it is
 * written again and again while a migration copies it. What a page must hold follows from one counter: a page that
 * was copied too early, or not again, is found when it is verified, at the latest before it is written the next time.
 * One thread, one poll loop: a command that runs, or a console nobody reads, never delays a tick.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define TICK_MS 50
#define TICKS_PER_BEAT 20
#define PAGE 4096
#define WORDS (PAGE / 8)
#define LINE_MAX_IN 3500
#define LINE_MAX_OUT 3000
#define CHURN_PAGES 128
#define CHURN_PER_TICK 8
#define PAGES_PER_BEAT 16
#define PAGES_PER_TURN 64
#define QUEUE (256 * 1024)
#define QUEUE_RESERVE (16 * 1024)
#define ID_MAX 64
#define SHELL_CHUNK 512
#define SHELL_ROOM (SHELL_CHUNK * (ID_MAX + 16) + LINE_MAX_OUT) /* a chunk that is all newlines */

static int console = -1;
static char queue[QUEUE];
static size_t queued;

static uint64_t *region;
static uint32_t *generations; /* what each page's generation must be: a stale page is consistent in itself */
static size_t pages;
static uint64_t rewrites;
static size_t next_rewrite, next_check;
static long long first_bad = -1;

static uint64_t *churn;
static uint64_t churned; /* how many pages of the area have been written since it was filled */
static int churn_bad;
static uint64_t churn_bad_page, churn_expected, churn_found;

static char scan_id[ID_MAX + 1];
static size_t scan_at;

static char shell_id[ID_MAX + 1];
static pid_t shell = -1;
static int shell_out = -1, shell_status;
static int shell_ended;
static char shell_line[LINE_MAX_OUT];
static size_t shell_filled;

static int64_t max_gap_ms, max_gap_wall_ms;

static int64_t now_ms(clockid_t clock)
{
    struct timespec at;
    clock_gettime(clock, &at);
    return (int64_t)at.tv_sec * 1000 + at.tv_nsec / 1000000;
}

/* ---- lines out ---- */

static void flush_queue(void)
{
    while (queued > 0) {
        ssize_t written = write(console, queue, queued);
        if (written <= 0)
            return;
        queued -= (size_t)written;
        memmove(queue, queue + written, queued);
    }
}

/* A line goes out whole or not at all. Only replies may use the reserve, so that heartbeats never crowd them out. */
__attribute__((format(printf, 2, 3))) static void say(size_t reserve, const char *format, ...)
{
    char line[LINE_MAX_OUT + 256];
    va_list values;
    va_start(values, format);
    int size = vsnprintf(line, sizeof line - 1, format, values);
    va_end(values);
    if (size < 0)
        return;
    if ((size_t)size > sizeof line - 2)
        size = sizeof line - 2;
    line[size++] = '\n';
    if (queued + (size_t)size + reserve > QUEUE)
        return;
    memcpy(queue + queued, line, (size_t)size);
    queued += (size_t)size;
    flush_queue();
}

#define reply(id, format, ...) say(0, "LAB-REPLY %s " format, id, ##__VA_ARGS__)

/* ---- memory ---- */

static uint64_t mix(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void write_page(size_t index)
{
    uint64_t *page = region + index * WORDS;
    uint64_t state = ((uint64_t)index << 32) ^ generations[index];
    page[0] = index;
    page[1] = generations[index];
    for (size_t i = 2; i < WORDS; i++)
        page[i] = mix(&state);
}

static int page_is_good(size_t index)
{
    const uint64_t *page = region + index * WORDS;
    uint64_t state = ((uint64_t)index << 32) ^ generations[index];
    if (page[0] != index || page[1] != generations[index])
        return 0;
    for (size_t i = 2; i < WORDS; i++)
        if (page[i] != mix(&state))
            return 0;
    return 1;
}

static void check_page(size_t index)
{
    if (first_bad < 0 && !page_is_good(index))
        first_bad = (long long)index;
}

/* The number a page of the churning area was written with last; its pages are written in turn. */
static uint64_t churn_number(size_t index)
{
    size_t next = churned % CHURN_PAGES;
    return churned / CHURN_PAGES - (index < next ? 0 : 1); /* what was there before the first turn is number -1 */
}

/* Each word differs by its place and by the number, at the cost of one addition. */
static uint64_t churn_word(size_t index, uint64_t number)
{
    return (number * CHURN_PAGES + index) * 0x9e3779b97f4a7c15u;
}

static void churn_write(size_t index, uint64_t number)
{
    uint64_t *page = churn + index * WORDS, word = churn_word(index, number);
    page[0] = number;
    for (size_t i = 1; i < WORDS; i++)
        page[i] = word += 0xbf58476d1ce4e5b9u;
}

static void churn_check(size_t index)
{
    const uint64_t *page = churn + index * WORDS;
    uint64_t number = churn_number(index), word = churn_word(index, number);
    int good = page[0] == number;
    for (size_t i = 1; good && i < WORDS; i++)
        good = page[i] == (word += 0xbf58476d1ce4e5b9u);
    if (good || churn_bad)
        return;
    churn_bad = 1;
    churn_bad_page = index;
    churn_expected = number;
    churn_found = page[0];
}

static void churn_on(void)
{
    for (int i = 0; i < CHURN_PER_TICK; i++) {
        size_t index = churned % CHURN_PAGES;
        churn_check(index);
        churn_write(index, churned++ / CHURN_PAGES);
    }
}

static void report_churn(const char *id)
{
    reply(id, "error churn_page=%llu expected_number=%lld found_number=%lld", (unsigned long long)churn_bad_page,
          (long long)churn_expected, (long long)churn_found);
}

static void report_bad(const char *id)
{
    const uint64_t *page = region + (size_t)first_bad * WORDS;
    reply(id, "error page=%lld expected_generation=%u found_index=%llu found_generation=%llu", first_bad,
          generations[first_bad], (unsigned long long)page[0], (unsigned long long)page[1]);
}

/* Some pages of a whole verification; ticks go on in between. */
static void scan_turn(void)
{
    for (int i = 0; i < PAGES_PER_TURN && scan_at < pages; i++)
        check_page(scan_at++);
    if (scan_at < pages && first_bad < 0)
        return;
    uint64_t sum = 0;
    for (size_t i = 0; i < pages; i++)
        sum += generations[i];
    for (size_t i = 0; i < CHURN_PAGES; i++) /* at one moment, as it changes all the time */
        churn_check(i);
    if (first_bad >= 0)
        report_bad(scan_id);
    else if (churn_bad)
        report_churn(scan_id);
    else if (sum != rewrites)
        reply(scan_id, "error generations=%llu rewrites=%llu", (unsigned long long)sum, (unsigned long long)rewrites);
    else
        reply(scan_id, "ok pages=%zu generations=%llu churned=%llu", pages, (unsigned long long)rewrites,
              (unsigned long long)churned);
    scan_id[0] = '\0';
}

static size_t wanted_pages(void)
{
    char line[4096] = "";
    long mib = 8;
    int fd = open("/proc/cmdline", O_RDONLY);
    if (fd >= 0) {
        ssize_t got = read(fd, line, sizeof line - 1);
        line[got > 0 ? got : 0] = '\0';
        close(fd);
    }
    char *place;
    for (char *word = strtok_r(line, " \n", &place); word; word = strtok_r(NULL, " \n", &place))
        if (strncmp(word, "lab.mem=", 8) == 0)
            mib = strtol(word + 8, NULL, 10);
    if (mib < 1)
        mib = 1;
    if (mib > 65536)
        mib = 65536;
    return (size_t)mib * (1024 * 1024 / PAGE);
}

static void take_memory(void)
{
    for (pages = wanted_pages();; pages /= 2) { /* a wish larger than the guest is no reason to have no agent */
        region = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        generations = calloc(pages, sizeof *generations);
        if (region != MAP_FAILED && generations)
            break;
        if (region != MAP_FAILED)
            munmap(region, pages * PAGE);
        free(generations);
        if (pages < 2)
            exit(1);
    }
    for (size_t i = 0; i < pages; i++)
        write_page(i);
    /* shared, so that it is a mapping of its own that can be told from the region */
    churn = mmap(NULL, CHURN_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (churn == MAP_FAILED)
        exit(1);
    for (size_t i = 0; i < CHURN_PAGES; i++)
        churn_write(i, churn_number(i));
}

/* ---- commands ---- */

static void shell_start(const char *id, const char *command)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) {
        reply(id, "error pipe: %s", strerror(errno));
        return;
    }
    pid_t child = fork();
    if (child < 0) {
        reply(id, "error fork: %s", strerror(errno));
        close(ends[0]);
        close(ends[1]);
        return;
    }
    if (child == 0) {
        int nothing = open("/dev/null", O_RDONLY);
        setsid();
        signal(SIGPIPE, SIG_DFL);
        dup2(nothing, STDIN_FILENO);
        dup2(ends[1], STDOUT_FILENO);
        dup2(ends[1], STDERR_FILENO);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    shell = child;
    shell_out = ends[0];
    shell_ended = 0;
    shell_filled = 0;
    strcpy(shell_id, id);
}

static void shell_say_line(void)
{
    say(0, "LAB-OUT %s %.*s", shell_id, (int)shell_filled, shell_line);
    shell_filled = 0;
}

/* Reads what there is, but no more than the console's queue can take. */
static void shell_read(void)
{
    char data[SHELL_CHUNK];
    while (shell_out >= 0 && queued + SHELL_ROOM + QUEUE_RESERVE < QUEUE) {
        ssize_t got = read(shell_out, data, sizeof data);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EAGAIN)
            return;
        if (got <= 0) {
            close(shell_out);
            shell_out = -1;
            return;
        }
        for (ssize_t i = 0; i < got; i++) {
            unsigned char c = (unsigned char)data[i];
            if (c == '\n' || shell_filled == sizeof shell_line) {
                shell_say_line();
                if (c == '\n')
                    continue;
            }
            /* What could look like another line, or move a terminal's cursor, is shown as '?'. */
            shell_line[shell_filled++] = (char)(c < 0x20 && c != '\t' ? '?' : c);
        }
    }
}

/* The command has ended and what it wrote has been read. A child it left behind may keep the pipe: it is let go. */
static void shell_finish(void)
{
    shell_read();
    if (shell_out >= 0 && queued + SHELL_ROOM + QUEUE_RESERVE >= QUEUE)
        return;
    if (shell_filled > 0)
        shell_say_line();
    if (shell_out >= 0)
        close(shell_out);
    int code = WIFEXITED(shell_status) ? WEXITSTATUS(shell_status) : 128 + WTERMSIG(shell_status);
    reply(shell_id, "%s exit=%d", code == 0 ? "ok" : "error", code);
    shell_out = -1;
    shell = -1;
    shell_ended = 0;
}

static void reap(void)
{
    int status;
    pid_t child;
    while ((child = waitpid(-1, &status, WNOHANG)) > 0) /* as the first process, also others' orphans */
        if (child == shell) {
            shell_status = status;
            shell_ended = 1;
        }
}

static void obey(char *line)
{
    char *place = NULL;
    if (strncmp(line, "LAB ", 4) != 0) {
        reply("?", "error malformed line");
        return;
    }
    char *id = strtok_r(line + 4, " ", &place);
    size_t size = id ? strlen(id) : 0;
    int sane = size > 0 && size <= ID_MAX;
    for (size_t i = 0; sane && i < size; i++)
        sane = isalnum((unsigned char)id[i]) != 0;
    if (!sane) {
        reply("?", "error malformed id");
        return;
    }
    char *verb = strtok_r(NULL, " ", &place);
    char *rest = place;
    if (!verb)
        reply(id, "error no verb");
    else if (strcmp(verb, "ping") == 0)
        reply(id, "ok pong");
    else if (strcmp(verb, "reset") == 0) {
        max_gap_ms = max_gap_wall_ms = 0;
        reply(id, "ok reset");
    } else if (strcmp(verb, "gap") == 0)
        reply(id, "ok maxgap_ms=%lld wall_at=%lld.%03lld", (long long)max_gap_ms, (long long)(max_gap_wall_ms / 1000),
              (long long)(max_gap_wall_ms % 1000));
    else if (strcmp(verb, "mem") == 0) {
        if (scan_id[0]) {
            reply(id, "error busy");
        } else {
            strcpy(scan_id, id);
            scan_at = 0;
        }
    } else if (strcmp(verb, "sh") == 0) {
        if (shell >= 0)
            reply(id, "error busy");
        else if (!rest || !*rest)
            reply(id, "error no command");
        else
            shell_start(id, rest);
    } else
        reply(id, "error unknown verb");
}

static void read_console(void)
{
    static char line[LINE_MAX_IN + 1];
    static size_t filled;
    static int dropping;
    char data[1024];
    ssize_t got;
    while ((got = read(console, data, sizeof data)) > 0)
        for (ssize_t i = 0; i < got; i++) {
            if (data[i] == '\n') {
                line[filled] = '\0';
                if (!dropping && filled > 0)
                    obey(line);
                filled = 0;
                dropping = 0;
            } else if (data[i] == '\r' || data[i] == '\0') {
                continue;
            } else if (filled == LINE_MAX_IN) {
                dropping = 1;
            } else if (!dropping) {
                line[filled++] = data[i];
            }
        }
}

/* ---- time ---- */

static void tick(void)
{
    static int64_t last_wall;
    static unsigned count;
    static unsigned long beats;
    int64_t wall = now_ms(CLOCK_REALTIME);
    if (last_wall && wall - last_wall > max_gap_ms) {
        max_gap_ms = wall - last_wall;
        max_gap_wall_ms = wall;
    }
    last_wall = wall;
    check_page(next_rewrite); /* a damaged page must be seen before it is written over */
    generations[next_rewrite]++;
    rewrites++;
    write_page(next_rewrite);
    next_rewrite = (next_rewrite + 1) % pages;
    churn_on();
    reap();
    if (++count % TICKS_PER_BEAT)
        return;
    for (int i = 0; i < PAGES_PER_BEAT; i++) {
        check_page(next_check);
        next_check = (next_check + 1) % pages;
    }
    int64_t mono = now_ms(CLOCK_MONOTONIC);
    say(QUEUE_RESERVE, "LAB-HB seq=%lu wall=%lld.%03lld mono=%lld.%03lld maxgap_ms=%lld mem=%s", beats++,
        (long long)(wall / 1000), (long long)(wall % 1000), (long long)(mono / 1000), (long long)(mono % 1000),
        (long long)max_gap_ms, first_bad < 0 && !churn_bad ? "ok" : "bad");
}

static void open_console(const char *path)
{
    console = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (console < 0)
        exit(1);
    struct termios line;
    if (tcgetattr(console, &line) == 0) {
        cfmakeraw(&line);
        tcsetattr(console, TCSANOW, &line);
    }
}

int main(int argc, char **argv)
{
    open_console(argc > 1 ? argv[1] : "/dev/hvc0");
    signal(SIGPIPE, SIG_IGN);
    take_memory();
    int64_t start = now_ms(CLOCK_BOOTTIME);
    say(0, "LAB-GUEST ready uptime=%lld.%03lld mem_pages=%zu", (long long)(start / 1000), (long long)(start % 1000),
        pages);
    int64_t due = now_ms(CLOCK_MONOTONIC) + TICK_MS;
    for (;;) {
        int64_t left = due - now_ms(CLOCK_MONOTONIC);
        if (left <= 0) {
            tick();
            due += TICK_MS;
            if (left < -TICK_MS) /* late by more than a tick: go on from now, do not make up for the lost ones */
                due = now_ms(CLOCK_MONOTONIC) + TICK_MS;
            continue;
        }
        int room = queued + SHELL_ROOM + QUEUE_RESERVE < QUEUE;
        struct pollfd fds[2] = {
            {.fd = console, .events = (short)(POLLIN | (queued ? POLLOUT : 0))},
            {.fd = room ? shell_out : -1, .events = POLLIN},
        };
        poll(fds, 2, scan_id[0] ? 0 : (int)left);
        if (fds[0].revents & (POLLHUP | POLLERR))
            usleep(10000); /* a console without its other end: do not spin */
        if (fds[0].revents & POLLIN)
            read_console();
        if (fds[0].revents & POLLOUT)
            flush_queue();
        if (fds[1].revents) {
            shell_read();
            reap();
        }
        if (shell >= 0 && shell_ended)
            shell_finish();
        if (scan_id[0])
            scan_turn();
    }
}
