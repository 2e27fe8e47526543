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
 * Scheduling: base/sharing.h says which place compute threads take; here it is taken, by the threads named "compute"
 * alone, for a thread that a compute thread starts inherits its name as well as its place. Measured on two cores,
 * starter models, text running without a pause beside pictures without a pause: an equal share (nice 0) leaves text 67
 * to 96 % of its tokens per second, nice 5 75 to 82 %, nice 10 88 to 92 %, nice 15 93 to 99 %. Nice 12 keeps text its
 * 80 % with room to spare, and a picture beside a busy machine gets twice what nice 15 would give it.
 *
 * Without privileges a thread can only be lowered. compute.c replaces a compute thread that is to rise by a new one,
 * which starts where the loop's thread is.
 *
 * Where the kernel groups by session (autogroup, Debian's default), nice only counts inside a session, and each
 * session gets an equal share. In one session with the server and the text worker that is just right: pictures give
 * way to text, and the three together hold their own beside anything else the machine does. */
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

static bool is_compute(pid_t thread)
{
    char name[16] = "";
    char *path = mem_printf("/proc/self/task/%d/comm", (int)thread);
    FILE *f = fopen(path, "re");
    bool is = f && fgets(name, sizeof(name), f) && strcmp(name, CAGE_COMPUTE "\n") == 0;

    if (f)
        fclose(f);
    free(path);
    return is;
}

void cage_place_compute(struct sharing_place place)
{
    const struct sched_param none = {0};
    DIR *tasks = opendir("/proc/self/task");

    for (struct dirent *entry; tasks && (entry = readdir(tasks));) {
        pid_t thread = (pid_t)strtol(entry->d_name, NULL, 10);

        if (thread <= 0 || !is_compute(thread)) /* "."; the loop's own thread */
            continue;
        sched_setscheduler(thread, place.is_batch ? SCHED_BATCH : SCHED_OTHER, &none);
        setpriority(PRIO_PROCESS, (id_t)thread,
                    place.nice); /* of one thread, on Linux */
    }
    if (tasks)
        closedir(tasks);
}
