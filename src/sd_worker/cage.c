/* Death of the parent: the kernel sends SIGKILL when the thread that started us ends (PR_SET_PDEATHSIG). If the
 * parent died between its fork and our prctl, no signal will ever come; the pid it told us in MYSTI_SERVER_PID
 * then differs from getppid(), and we leave at once.
 *
 * OpenMP: libgomp reads OMP_WAIT_POLICY and OMP_NUM_THREADS in its constructor, before main. Its default is to
 * spin at the end of a parallel region, which on few cores takes from the text worker exactly the time slices
 * that its own spinning threads wait for. So the program sets the variables and becomes itself again; exec keeps
 * pid, parent-death signal and argv[0]. The variable MYSTI_SD_WORKER_ENV marks the second start, so that there
 * is never a third.
 *
 * Scheduling: weight, not class, decides who gets a core that two want. Measured on two cores, starter models,
 * text running without a pause beside pictures without a pause: an equal share (nice 0) leaves text 67 to 96 % of its
 * tokens per second, nice 5 75 to 82 %, nice 10 88 to 92 %, nice 15 93 to 99 %. Nice 12 weighs 70 against 1024: text
 * keeps its 80 % with room to spare, and a picture beside a busy machine gets twice what nice 15 would give it.
 * SCHED_BATCH keeps a waking thread from cutting in. SCHED_IDLE (weight 3) would leave a picture 0.3 % of a core for
 * as long as somebody computes, which is standing still; it can be asked for.
 *
 * Where the kernel groups by session (autogroup, Debian's default), nice only counts inside a session, and each
 * session gets an equal share. In one session with the server and the text worker that is just right: pictures give
 * way to text, and the three together hold their own beside anything else the machine does. As the leader of a session
 * of its own this process sets the group's nice value, or text would get half; the price is that everybody else on
 * a busy machine goes before pictures, too. */
#include "sd_worker/cage.h"

#include "base/cores.h"
#include "base/mem.h"
#include "base/str.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

enum { BATCH_NICE = 12, IDLE_NICE = 19 };

static const char *const scheduling_names[] = {
    [CAGE_BATCH] = "batch", [CAGE_IDLE] = "idle", [CAGE_NORMAL] = "normal"};

int cage_scheduling_parse(const char *name, enum cage_scheduling *ret, struct err *err)
{
    for (int i = 0; i < 3; i++) {
        if (strcmp(name, scheduling_names[i]) == 0) {
            *ret = (enum cage_scheduling)i;
            return 0;
        }
    }
    return err_set(err, ERR_INVALID,
                   "--scheduling '%s': known are batch, idle and normal", name);
}

/* No core file with prompts and the token in it; when memory runs out, the kernel takes this process before the
 * server that can start it again. */
static void close_doors(void)
{
    const struct rlimit none = {0, 0};
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    setrlimit(RLIMIT_CORE, &none);
    if (fd < 0)
        return;
    if (write(fd, "500", 3) < 0) {
        /* then the kernel judges by size alone */
    }
    close(fd);
}

int cage_enter(struct err *err)
{
    const char *server = getenv("MYSTI_SERVER_PID");
    int64_t pid;

    prctl(PR_SET_NAME, "mysti_sd_worker"); /* exec through /proc names it "exe" */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    (void)setpgid(0, 0); /* Ctrl-C in the server's terminal is the server's to answer */
    close_doors();
    if (!server)
        return 0;
    if (str_to_int(server, "MYSTI_SERVER_PID", 1, INT32_MAX, &pid, err))
        return -1;
    if (getppid() != pid)
        return err_set(err, ERR_UNAVAILABLE, "the server (pid %s) is gone", server);
    return 0;
}

static bool is_env(const char *name, const char *value)
{
    const char *now = getenv(name);

    return now && strcmp(now, value) == 0;
}

int cage_threads(int threads, char **argv)
{
    int count = threads > 0 ? threads : cores_usable();
    char *text = mem_printf("%d", count);
    bool is_set =
        is_env("OMP_NUM_THREADS", text) && is_env("OMP_WAIT_POLICY", "passive");

    if (!is_set && !getenv("MYSTI_SD_WORKER_ENV")) {
        setenv("OMP_NUM_THREADS", text, 1);
        setenv("OMP_WAIT_POLICY", "passive", 1);
        setenv("MYSTI_SD_WORKER_ENV", "1", 1);
        execv("/proc/self/exe", argv);
        /* no /proc: go on, a little slower beside text */
    }
    free(text);
    return count;
}

char *cage_take_token(void)
{
    char *env = getenv("MYSTI_WORKER_TOKEN");
    char *token;

    if (!env || !*env)
        return NULL;
    token = mem_strdup(env);
    explicit_bzero(env, strlen(env)); /* what /proc/<pid>/environ shows */
    unsetenv("MYSTI_WORKER_TOKEN");
    return token;
}

static void schedule_session(int nice)
{
    char text[8];
    int len = snprintf(text, sizeof(text), "%d", nice);
    int fd;

    if (getsid(0) != getpid())
        return; /* somebody's shell: not ours to slow down */
    fd = open("/proc/self/autogroup", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (write(fd, text, (size_t)len) < 0) {
        /* no groups by session in this kernel: nice alone decides */
    }
    close(fd);
}

void cage_schedule_compute(enum cage_scheduling scheduling)
{
    const struct sched_param none = {0};
    const bool is_idle = scheduling == CAGE_IDLE;
    const int nice = is_idle ? IDLE_NICE : BATCH_NICE;
    DIR *tasks = scheduling == CAGE_NORMAL ? NULL : opendir("/proc/self/task");

    for (struct dirent *entry; tasks && (entry = readdir(tasks));) {
        pid_t thread = (pid_t)strtol(entry->d_name, NULL, 10);

        if (thread <= 0 || thread == getpid()) /* "." and the loop's own thread */
            continue;
        sched_setscheduler(thread, is_idle ? SCHED_IDLE : SCHED_BATCH, &none);
        setpriority(PRIO_PROCESS, (id_t)thread, nice); /* of one thread, on Linux */
    }
    if (!tasks)
        return;
    closedir(tasks);
    schedule_session(nice);
}
