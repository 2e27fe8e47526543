/* Which llama-server?
 *
 * Named by option or by MYSTI_LLAMA_SERVER, else the first one in PATH (somebody has installed or built it: for
 * their GPU, probably), else the one in the private prefix of the build.
 *
 * A program of the prefix belongs to a newer Debian than the one it runs on. It is therefore started through that
 * prefix's own ld.so with that prefix's libraries, so that there is one C library in the process and it is the right
 * one. Whether a program is such a one is seen from its place: PREFIX/usr/bin/llama-server with an ld.so
 * in PREFIX/usr/lib/TRIPLET, where PREFIX is not the system itself.
 *
 * ggml loads its back ends (one per processor family, GPUs) as plug-ins from its working folder and from the folder
 * of the executable, which under ld.so is the wrong one. So the worker goes to the folder with the plug-ins; all paths
 * in its arguments must be absolute for that. */
#include "engine.h"

#include "base/file.h"
#include "base/mem.h"

#include <errno.h>
#include <glob.h>
#include <limits.h>
#include <unistd.h>

static bool is_program(const char *path)
{
    return access(path, X_OK) == 0;
}

static char *absolute(const char *path)
{
    char real[PATH_MAX];

    return realpath(path, real) ? mem_strdup(real) : NULL;
}

static char *find_in_path(const char *name)
{
    const char *path = getenv("PATH");

    while (path && *path) {
        const char *end = strchrnul(path, ':');
        char *folder = mem_strndup(path, (size_t)(end - path));
        char *program = folder[0] == '/' ? file_join(folder, name) : NULL;

        free(folder);
        if (program && is_program(program))
            return program;
        free(program);
        path = *end ? end + 1 : end;
    }
    return NULL;
}

static char *find_in_prefix(void)
{
    static const char *const beside[] = {"../../.deps/testing", "../.deps/testing"};
    char *folder = file_program_folder();
    char *found = NULL;

    for (size_t i = 0; i < 3 && !found; i++) {
        char *prefix =
            i == 0 ? mem_strdup(MYSTI_LLAMA_PREFIX) : file_join(folder, beside[i - 1]);
        char *program = file_join(prefix, "usr/bin/llama-server");

        if (is_program(program))
            found = absolute(program);
        free(program);
        free(prefix);
    }
    free(folder);
    return found;
}

/* PATH/usr of PATH/usr/bin/llama-server; NULL when it lies elsewhere */
static char *usr_of(const char *program)
{
    const char *bin = strstr(program, "/bin/llama-server");

    return bin && bin != program ? mem_strndup(program, (size_t)(bin - program)) : NULL;
}

static char *first_match(const char *folder, const char *pattern)
{
    char *path = file_join(folder, pattern);
    char *found = NULL;
    glob_t matches;

    if (glob(path, 0, NULL, &matches) == 0) {
        found = mem_strdup(matches.gl_pathv[0]);
        globfree(&matches);
    }
    free(path);
    return found;
}

static void look_around(struct engine *e)
{
    char *usr = usr_of(e->program);
    char *libraries, *plugins;

    if (!usr)
        return;
    libraries = mem_printf("%s/lib/%s", usr, MYSTI_TRIPLET);
    plugins = first_match(libraries, "ggml/backends*");
    if (plugins)
        e->folder = plugins;
    if (strcmp(usr, "/usr") != 0 && strcmp(usr, "/usr/local") != 0) {
        e->loader = first_match(libraries, "ld-linux*.so.*");
        e->library_path = mem_printf("%s:%s/llama", libraries, libraries);
    }
    free(libraries);
    free(usr);
}

int engine_find(const char *given, struct engine *ret, struct err *err)
{
    const char *variable = getenv("MYSTI_LLAMA_SERVER");
    const char *named = given && *given         ? given
                        : variable && *variable ? variable
                                                : NULL;
    struct engine e = {0};

    if (named) {
        e.found = named == given ? "--llama-server" : "MYSTI_LLAMA_SERVER";
        e.program = strchr(named, '/') ? absolute(named) : find_in_path(named);
        if (!e.program || !is_program(e.program)) {
            free(e.program);
            return err_set(err, ERR_NOT_FOUND, "%s names %s, which is no program: %s",
                           e.found, named, strerror(errno ? errno : ENOENT));
        }
    }
    if (!e.program && (e.program = find_in_path("llama-server")))
        e.found = "PATH";
    if (!e.program && (e.program = find_in_prefix()))
        e.found = "the prefix of the build";
    if (!e.program)
        return err_set(err, ERR_NOT_FOUND,
                       "llama-server was found neither in PATH nor in %s: install "
                       "llama.cpp, run deps/fetch.sh, or name it with --llama-server",
                       MYSTI_LLAMA_PREFIX);
    look_around(&e);
    *ret = e;
    return 0;
}

void engine_release(struct engine *e)
{
    free(e->program);
    free(e->loader);
    free(e->library_path);
    free(e->folder);
    *e = (struct engine){0};
}
