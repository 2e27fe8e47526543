/* The cage.
 *
 * Parent-death signal: the kernel kills this process when the thread that started it ends, which is the server's main
 * thread. It survives exec. Two moments are not covered by asking for it: the server may have died before we asked, and
 * then the parent is somebody else already; so getppid() is compared with the pid that the server wrote into our
 * environment. The pid could only mislead if it had been used again within that moment, by our new parent.
 *
 * Cores: ggml's threads spin at barriers, so more threads than physical cores make every token slower. Hyper-threads
 * are counted once (topology of sysfs), the affinity mask and the quota of the control group limit further. */
#include "cage.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define CPUS_MAX 1024

int cage_follow_server(struct err *err)
{
    const char *server = getenv("MYSTI_SERVER_PID");

    if (!server || !*server) /* started by hand */
        return 0;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL))
        return err_set(err, ERR_INTERNAL, "prctl(PR_SET_PDEATHSIG): %s",
                       strerror(errno));
    if (getppid() != (pid_t)strtol(server, NULL, 10))
        return err_set(err, ERR_CANCELLED, "the server (pid %s) is gone: not starting",
                       server);
    return 0;
}

void cage_close(void)
{
    struct rlimit none = {0, 0};
    int fd;

    (void)setpgid(0, 0); /* fails when the server has made it a leader already */
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    setrlimit(RLIMIT_CORE, &none); /* a core would hold prompts and the token */
    umask(077);
    fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) { /* the model goes before the server that can start it again */
        (void)!write(fd, "500", 3);
        close(fd);
    }
    close_range(3, ~0U, 0);
}

static long read_number(const char *path)
{
    FILE *f = fopen(path, "re");
    long n = -1;

    if (f && fscanf(f, "%ld", &n) != 1)
        n = -1;
    if (f)
        fclose(f);
    return n;
}

/* Is cpu the first of the mask on its core? */
static bool is_first_of_core(int cpu, const cpu_set_t *mask)
{
    static const char format[] = "/sys/devices/system/cpu/cpu%d/topology/%s";
    char path[96];
    long core, package;

    snprintf(path, sizeof(path), format, cpu, "core_id");
    core = read_number(path);
    snprintf(path, sizeof(path), format, cpu, "physical_package_id");
    package = read_number(path);
    if (core < 0)
        return true;
    for (int other = 0; other < cpu; other++) {
        if (!CPU_ISSET(other, mask))
            continue;
        snprintf(path, sizeof(path), format, other, "core_id");
        if (read_number(path) != core)
            continue;
        snprintf(path, sizeof(path), format, other, "physical_package_id");
        if (read_number(path) == package)
            return false;
    }
    return true;
}

/* CPUs' worth of time that the control group allows, rounded up; 0: no limit */
static int quota(void)
{
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "re");
    long limit = 0, period = 0;
    bool limited = f && fscanf(f, "%ld %ld", &limit, &period) == 2;

    if (f)
        fclose(f);
    return limited && period > 0 ? (int)((limit + period - 1) / period) : 0;
}

int cage_cores(void)
{
    cpu_set_t mask;
    int cores = 0;
    int allowed = quota();

    if (sched_getaffinity(0, sizeof(mask), &mask))
        return 1;
    for (int cpu = 0; cpu < CPUS_MAX && cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &mask) && is_first_of_core(cpu, &mask))
            cores++;
    if (allowed > 0 && allowed < cores)
        cores = allowed;
    return cores > 0 ? cores : 1;
}
