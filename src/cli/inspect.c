/* mysti inspect: what a model file is. Needs no server: the reader of model files is in the picture worker's program,
 * which is started with --inspect and answers one JSON object. It is printed for people, or with --json as it came.
 *
 * A process of its own, because foreign bytes are read in it, and because this program links no engine. */
#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/model_folder.h"
#include "base/named_files.h"
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/client.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

struct inspect {
    bool json;
    char *path;
};

/* ---- asking ---- */

/* Beside this program, or where the server's option of the same name says. */
static char *program_path(void)
{
    const char *given = getenv("MYSTI_SD_WORKER_PROGRAM");
    char *folder, *path;

    if (given && *given)
        return mem_strdup(given);
    folder = file_program_folder();
    path = file_join(folder, "mysti_sd_worker");
    free(folder);
    return path;
}

static void read_all(int fd, struct buf *ret)
{
    ssize_t n;

    do {
        n = read(fd, buf_reserve(ret, 65536), 65536);
        if (n > 0)
            ret->len += (size_t)n;
    } while (n > 0 || (n < 0 && errno == EINTR));
}

/* Its standard output, all of it. */
static int ask(const char *program, const char *path, struct buf *ret_answer,
               struct err *err)
{
    char *option = mem_printf("--inspect=%s", path);
    char *name = mem_strdup("mysti_sd_worker");
    char *const argv[] = {name, option, NULL};
    posix_spawn_file_actions_t actions;
    int ends[2], failure;
    pid_t pid;

    if (pipe2(ends, O_CLOEXEC)) {
        failure = errno;
        goto out;
    }
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    failure = posix_spawn(&pid, program, &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    if (failure == 0) {
        read_all(ends[0], ret_answer);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    close(ends[0]);
out:
    free(option);
    free(name);
    return failure ? err_set(err, ERR_UNAVAILABLE, "cannot start %s: %s", program,
                             strerror(failure))
                   : 0;
}

/* ---- printing ---- */

/* Text from a file: what could move a terminal's cursor becomes '?'. */
static void print_text(const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        bool is_c1 = *p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0;

        if (*p < 0x20 || *p == 0x7f || is_c1)
            putchar('?');
        else
            putchar(*p);
        p += is_c1;
    }
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "";
}

static long long number_of(const json_t *object, const char *key)
{
    return (long long)json_integer_value(json_object_get(object, key));
}

static void print_bytes(long long bytes)
{
    if (bytes >= 1000000000)
        printf("%.2f GB", (double)bytes / 1e9);
    else if (bytes >= 1000000)
        printf("%.1f MB", (double)bytes / 1e6);
    else
        printf("%lld bytes", bytes);
}

static void print_parameters(long long parameters)
{
    if (parameters >= 1000000)
        printf("%.1f million", (double)parameters / 1e6);
    else
        printf("%lld", parameters);
}

static void print_title(const char *title)
{
    printf("  %-10s ", title);
}

static void print_types(const json_t *report)
{
    const char *name, *between = "";
    json_t *types = json_object_get(report, "types"), *type;

    print_title("types");
    json_object_foreach(types, name, type)
    {
        long long tensors = number_of(type, "tensors");

        printf("%s%s in %lld tensor%s", between, name, tensors,
               tensors == 1 ? "" : "s");
        if (json_is_true(json_object_get(type, "is_read"))) {
            printf(" (");
            print_bytes(number_of(type, "bytes"));
            printf(")");
        } else {
            printf(", which cannot be read");
        }
        between = "; ";
    }
    printf("\n");
}

static void print_parts(const json_t *report)
{
    const json_t *part;
    size_t i;

    json_array_foreach(json_object_get(report, "parts"), i, part)
    {
        print_title(i ? "" : "parts");
        printf("%s: ", text_of(part, "name"));
        print_parameters(number_of(part, "parameters"));
        printf(" parameters, ");
        print_bytes(number_of(part, "bytes"));
        printf("\n");
    }
}

static void print_metadata(const json_t *report)
{
    const char *key, *title = "metadata";
    json_t *value;

    json_object_foreach(json_object_get(report, "metadata"), key, value)
    {
        print_title(title);
        print_text(key);
        printf(": ");
        print_text(json_string_value(value));
        printf("\n");
        title = "";
    }
}

static void print_needs(const json_t *report)
{
    const json_t *need;
    size_t i;

    json_array_foreach(json_object_get(report, "needs"), i, need)
    {
        print_title(i ? "" : "needs");
        print_text(json_string_value(need));
        printf("\n");
    }
}

/* {"count": 12, "first": [...]} */
static void print_list(const json_t *report, const char *key, const char *title)
{
    const json_t *list = json_object_get(report, key), *name;
    const json_t *first = json_object_get(list, "first");
    long long count = number_of(list, "count");
    size_t i;

    if (!list)
        return;
    print_title(title);
    printf(count ? "%lld\n" : "nothing\n", count);
    json_array_foreach(first, i, name)
    {
        print_title("");
        print_text(json_string_value(name));
        printf("\n");
    }
    if (count > (long long)json_array_size(first)) {
        print_title("");
        printf("and %lld more\n", count - (long long)json_array_size(first));
    }
}

static void print_report(const json_t *report)
{
    const json_t *draws = json_object_get(report, "draws");

    print_text(text_of(report, "path"));
    printf("\n  ");
    print_text(text_of(report, "summary"));
    printf("\n");
    print_title("format");
    printf("%s, ", text_of(report, "format"));
    print_bytes(number_of(report, "bytes"));
    printf(", %lld tensors, ", number_of(report, "tensors"));
    print_parameters(number_of(report, "parameters"));
    printf(" parameters\n");
    print_types(report);
    print_parts(report);
    print_metadata(report);
    print_needs(report);
    print_list(report, "missing", "missing");
    print_list(report, "left_over", "left over");
    if (!draws)
        return;
    print_title("Mysti");
    printf(json_is_true(draws) ? "draws with it" : "does not draw with it: ");
    print_text(text_of(report, "trouble"));
    printf("\n");
}

/* What the program says of one file; NULL: err has its sentence. */
static json_t *look(const char *program, const char *path, struct err *err)
{
    struct buf said = {0};
    json_t *report = NULL;

    if (ask(program, path, &said, err) == 0) {
        report = json_loads(buf_str(&said), 0, NULL);
        if (client_error_of(report, err)) {
            json_decref(report);
            report = NULL;
        } else if (!json_is_object(report)) {
            err_set(err, ERR_BAD_GATEWAY,
                    "%s: the program that reads it ended without an answer", path);
            json_decref(report);
            report = NULL;
        }
    }
    buf_release(&said);
    return report;
}

static void print_json(const json_t *report)
{
    char *text = json_dumps(report, JSON_INDENT(2));

    printf("%s\n", text ? text : "{}");
    free(text);
}

static int inspect_one(const struct inspect *in, const char *program)
{
    struct err err = {0};
    json_t *report = look(program, in->path, &err);

    if (!report)
        return client_complain("inspect", CLI_REFUSED, &err);
    if (in->json)
        print_json(report);
    else
        print_report(report);
    json_decref(report);
    return CLI_OK;
}

/* A line for each model file; one that is broken has its sentence there. */
static int inspect_folder(const struct inspect *in, const char *program)
{
    char *const folders[] = {in->path, NULL};
    json_t *reports = json_array();
    struct named_list files;

    named_list_read(&files, folders);
    for (size_t i = 0; i < files.count; i++) {
        struct err err = {0};
        json_t *report = look(program, files.all[i].path, &err);

        if (!report)
            report = json_pack("{s:s, s:s, s:s}", "path", files.all[i].path, "kind",
                               "broken", "summary", err.message);
        if (!in->json) {
            print_text(text_of(report, "path"));
            printf("\n  ");
            print_text(text_of(report, "summary"));
            printf("\n");
        }
        json_array_append_new(reports, report);
    }
    if (in->json)
        print_json(reports);
    else if (!files.count)
        printf("no model files in %s\n", in->path);
    json_decref(reports);
    named_list_release(&files);
    return CLI_OK;
}

static int inspect(const struct inspect *in)
{
    char *program = program_path();
    struct stat st;
    char *network = model_folder_network(in->path);
    bool is_shelf = stat(in->path, &st) == 0 && S_ISDIR(st.st_mode) &&
                    !model_folder_is(in->path) && !network;
    int rc = is_shelf ? inspect_folder(in, program) : inspect_one(in, program);

    free(program);
    free(network);
    return rc;
}

static const struct args_option options[] = {{.name = "json",
                                              .kind = ARGS_FLAG,
                                              .at = offsetof(struct inspect, json),
                                              .help = "one JSON object, for programs"},
                                             {0}};
static const struct args_command command = {
    .name = "inspect",
    .summary =
        "Says what a model file is: its family and format, what is in it, what it "
        "needs,\nwhat is missing or left over, and whether Mysti draws with it.",
    .details =
        "Nothing is loaded and no server is needed. FILE may be a folder as diffusers "
        "writes them;\n"
        "any other folder gives a line for each model file in it. A file is judged by "
        "its tensors, not\n"
        "by its name: picture models whole or in parts, LoRA, textual inversions, "
        "upscalers,\n"
        "text models.\n\n"
        "  mysti inspect ~/Downloads/model.safetensors\n",
    .options = options,
    .operand = ARGS_ONE,
    .operand_name = "FILE",
    .operand_at = offsetof(struct inspect, path)};

int cli_inspect(int argc, char **argv)
{
    struct inspect in = {0};
    int rc;

    if (args_parse(&command, argc, argv, &in, &rc) == 0)
        rc = inspect(&in);
    free(in.path);
    return rc;
}
