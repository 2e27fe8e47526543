/* The cage.
 *
 * Parent-death signal: the kernel kills this process when the thread that started it ends, which is the server's main
 * thread. It survives exec. Two moments are not covered by asking for it: the server may have died before we asked, and
 * then the parent is somebody else already; so getppid() is compared with the pid that the server wrote into our
 * environment. The pid could only mislead if it had been used again within that moment, by our new parent.
 */
#include "cage.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

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

    (void)setpgid(0, 0); /* Ctrl-C in the terminal is the server's to answer */
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
