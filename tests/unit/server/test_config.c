/* The option table: three spellings of one thing, refused with a sentence when wrong. */
#include "unit.h"

#include "base/file.h"
#include "base/mem.h"
#include "server/config/options.h"

#include <unistd.h>

#define ARGS(...) ((char *[]){(char *)(uintptr_t) "mysti_server", __VA_ARGS__, NULL})
#define A(s) ((char *)(uintptr_t)(s))

static int parse(struct config *c, struct err *err, char **argv)
{
    int argc = 0;

    while (argv[argc])
        argc++;
    config_init(c);
    *err = (struct err){0};
    return config_from_args(c, argc, argv, err);
}

static void expect_refused(char **argv, const char *sentence)
{
    struct config c;
    struct err err;

    assert_int_equal(parse(&c, &err, argv), -1);
    assert_string_equal(err.message, sentence);
    config_release(&c);
}

static char *write_yaml(const char *text)
{
    char *path = mem_strdup("/tmp/mysti-test-config-XXXXXX");
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    return path;
}

static void defaults_are_the_documented_ones(void **state)
{
    struct config c;

    (void)state;
    config_init(&c);
    assert_string_equal(c.listen_ip, "127.0.0.1");
    assert_int_equal(c.listen_port, 1234);
    assert_int_equal(c.sd_port, 1235);
    assert_int_equal(c.llm_port, 1236);
    assert_int_equal(c.first_byte_timeout_s, 300);
    assert_int_equal(c.body_limit, 64 << 20);
    assert_int_equal(c.cors_origins.count, 0);
    assert_false(c.verbose);
    config_release(&c);
}

/* A row whose field is used twice or whose default does not fit would go unnoticed for long. */
static void every_row_is_sound(void **state)
{
    (void)state;
    for (size_t i = 0; i < option_count; i++) {
        struct config c;
        struct err err = {0};
        struct buf text = {0};

        config_init(&c);
        for (size_t j = 0; j < i; j++) {
            assert_string_not_equal(options[i].name, options[j].name);
            assert_int_not_equal(options[i].offset, options[j].offset);
        }
        assert_non_null(option_find(options[i].name));
        assert_true(strlen(options[i].help) > 5);
        option_print_value(&c, &options[i], &text);
        assert_true(text.len > 0);
        if (options[i].type == OPTION_NUMBER || options[i].type == OPTION_SIZE) {
            char above[32];

            snprintf(above, sizeof(above), "%lld", (long long)options[i].max + 1);
            assert_int_equal(option_set(&c, &options[i], above, "x", &err), -1);
        }
        buf_release(&text);
        config_release(&c);
    }
}

static void command_line_in_both_spellings(void **state)
{
    struct config c;
    struct err err;

    (void)state;
    assert_int_equal(parse(&c, &err,
                           ARGS(A("--listen-port=0"), A("--sd_port"), A("7"), A("-v"),
                                A("--body-limit"), A("2M"), A("--cors-origin"), A("a"),
                                A("--cors-origin"), A("b,c"), A("-lm"), A("x.gguf"))),
                     0);
    assert_int_equal(c.listen_port, 0);
    assert_int_equal(c.sd_port, 7);
    assert_int_equal(c.body_limit, 2 << 20);
    assert_int_equal(c.cors_origins.count, 3);
    assert_string_equal(c.cors_origins.items[2], "c");
    assert_string_equal(c.llm_model, "x.gguf");
    assert_true(c.verbose);
    config_release(&c);
}

static void what_is_wrong_gets_a_sentence(void **state)
{
    (void)state;
    expect_refused(ARGS(A("--listen-prt"), A("1")),
                   "unknown option --listen-prt; did you mean --listen-port?");
    expect_refused(
        ARGS(A("--listen-port"), A("65536")),
        "--listen-port must be a whole number from 0 to 65535, not \"65536\"");
    expect_refused(ARGS(A("--listen-port")), "--listen-port needs a value");
    expect_refused(ARGS(A("--sd-backend=gpu")),
                   "--sd-backend must be one of auto|dnnl|ref, not \"gpu\"");
    expect_refused(ARGS(A("--body-limit"), A("3X")),
                   "--body-limit must be a size like 65536, 64K or 2M, not \"3X\"");
    expect_refused(ARGS(A("--body-limit"), A("99999999999999G")),
                   "--body-limit must be a whole number from 0 to 8589934591, not "
                   "\"99999999999999\"");
    expect_refused(ARGS(A("--verbose=maybe")),
                   "--verbose must be true or false, not \"maybe\"");
    expect_refused(ARGS(A("model.gguf")),
                   "\"model.gguf\" is no option; options begin with "
                   "--, see --help");
    expect_refused(ARGS(A("--home"), A("a\nb")),
                   "--home must not contain control characters");
    expect_refused(ARGS(A("--mode"), A("sd-wroker")),
                   "--mode must be orchestrator, sd-worker or llm-worker, not "
                   "\"sd-wroker\"; did you mean sd-worker?");
}

static void a_mode_takes_the_rest(void **state)
{
    struct config c;
    struct err err;

    (void)state;
    assert_int_equal(
        parse(&c, &err, ARGS(A("--mode"), A("llm-worker"), A("--anything"), A("goes"))),
        0);
    assert_int_equal(c.action, CONFIG_LLM_WORKER);
    assert_int_equal(c.rest_count, 2);
    assert_string_equal(c.rest[0], "--anything");
    config_release(&c);
    assert_int_equal(
        parse(&c, &err, ARGS(A("--mode=orchestrator"), A("--listen-port"), A("5"))), 0);
    assert_int_equal(c.action, CONFIG_RUN);
    assert_int_equal(c.listen_port, 5);
    config_release(&c);
}

static void later_sources_win(void **state)
{
    char *path = write_yaml(
        "listen-port: 1\nsd-port: 2\nllm_port: 3\n"
        "cors-origin: [a, b]\nmodel-dir: other\noutput-dir: sub\nverbose: yes\n");
    struct config c;
    struct err err;

    (void)state;
    setenv("MYSTI_SD_PORT", "20", 1);
    setenv("MYSTI_LLM_PORT", "30", 1);
    assert_int_equal(parse(&c, &err,
                           ARGS(A("--mode"), A("orchestrator"), A("--model-dir=sub"),
                                A("--llm-port"), A("300"), A("--config"), path,
                                A("--cors-origin"), A("z"))),
                     0);
    assert_int_equal(c.listen_port, 1);
    assert_int_equal(c.sd_port, 20);
    assert_int_equal(c.llm_port, 300);
    assert_int_equal(c.cors_origins.count, 1); /* replaced, not grown */
    assert_string_equal(c.model_dir, "sub");
    assert_string_equal(c.output_dir, "/tmp/sub"); /* beside the file */
    assert_true(c.verbose);
    config_release(&c);
    setenv("MYSTI_SD_PORT", "many", 1);
    assert_int_equal(parse(&c, &err, ARGS(A("--llm-port"), A("1"))), -1);
    assert_string_equal(
        err.message,
        "MYSTI_SD_PORT must be a whole number from 0 to 65535, not \"many\"");
    config_release(&c);
    unsetenv("MYSTI_SD_PORT");
    unsetenv("MYSTI_LLM_PORT");
    unlink(path);
    free(path);
}

static void a_wrong_file_names_the_line(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"listen-port: 1\nlisten-prt: 2\n",
         "line 2: listen-prt; did you mean listen-port?"},
        {"listen-port: 1\nlisten-port: 2\n", "line 2: listen-port is there twice"},
        {"listen-port: {a: b}\n", "line 1: listen-port must be a plain value"},
        {"listen-port: [1]\n", "line 1: listen-port must be a plain value"},
        {"cors-origin: [[a]]\n", "line 1: cors-origin must be a list of plain values"},
        {"- a\n", "line 1: expected lines like"},
        {"listen-port: 1\n---\nsd-port: 1\n", "line 2: a second document"},
        {"listen-port: 70000\n",
         "line 1: listen-port must be a whole number from 0 to"},
        {"listen-port: \"1\n", "line 2: "},
        {"config: x\n", "unknown option"},
        {"? [a]\n: b\n", "line 1: expected the name of an option"},
        {"verbose: *x\n", "line 1: "},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        char *path = write_yaml(cases[i].text);
        struct config c;
        struct err err = {0};

        config_init(&c);
        assert_int_equal(config_from_yaml(&c, path, &err), -1);
        if (!strstr(err.message, cases[i].says))
            fail_msg("%s: \"%s\" does not say \"%s\"", cases[i].text, err.message,
                     cases[i].says);
        config_release(&c);
        unlink(path);
        free(path);
    }
}

static void a_file_may_be_empty(void **state)
{
    static const char *const texts[] = {"", "# nothing\n", "---\n", "listen-port:\n",
                                        "listen-port: ~\n"};

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        char *path = write_yaml(texts[i]);
        struct config c;
        struct err err = {0};

        config_init(&c);
        if (config_from_yaml(&c, path, &err))
            fail_msg("\"%s\": %s", texts[i], err.message);
        assert_int_equal(c.listen_port, 1234);
        config_release(&c);
        unlink(path);
        free(path);
    }
}

/* What --print-config writes is a file that means the same. */
static void printed_config_reads_back(void **state)
{
    struct config c, again;
    struct buf text = {0}, second = {0};
    struct err err;
    char *path;

    (void)state;
    assert_int_equal(parse(&c, &err,
                           ARGS(A("--home"), A("/x y\"\\z"), A("--body-limit"), A("5K"),
                                A("--cors-origin"), A("https://a,https://b"), A("-v"))),
                     0);
    config_print(&c, &text);
    path = write_yaml(buf_str(&text));
    config_init(&again);
    if (config_from_yaml(&again, path, &err))
        fail_msg("%s", err.message);
    config_print(&again, &second);
    assert_string_equal(buf_str(&text), buf_str(&second));
    assert_string_equal(again.home, "/x y\"\\z");
    buf_release(&text);
    buf_release(&second);
    config_release(&c);
    config_release(&again);
    unlink(path);
    free(path);
}

static void help_names_every_option(void **state)
{
    struct buf text = {0};

    (void)state;
    config_print_help(&text, "mysti_server");
    for (size_t i = 0; i < option_count; i++) {
        char name[64];

        snprintf(name, sizeof(name), "--%s ", options[i].name);
        if (!strstr(buf_str(&text), name))
            fail_msg("--help does not name %s", name);
    }
    buf_release(&text);
}

static void folders_follow_home(void **state)
{
    struct config c;
    struct err err;
    struct buf notes = {0};

    (void)state;
    setenv("XDG_STATE_HOME", "/state", 1);
    assert_int_equal(parse(&c, &err, ARGS(A("--llm-model=none"))), 0);
    assert_int_equal(config_resolve(&c, &notes, &err), 0);
    assert_string_equal(c.home, "/state/mysti");
    assert_string_equal(c.output_dir, "/state/mysti/outputs");
    assert_string_equal(c.model_dir, "/state/mysti/models");
    assert_string_equal(c.llm_model, "none");
    assert_int_equal(c.starters_dir[0], '/');
    config_release(&c);
    unsetenv("XDG_STATE_HOME");
    setenv("HOME", "/me", 1);
    assert_int_equal(parse(&c, &err, ARGS(A("--output-dir"), A("~/pictures"))), 0);
    assert_int_equal(config_resolve(&c, &notes, &err), 0);
    assert_string_equal(c.home, "/me/.local/state/mysti");
    assert_string_equal(c.output_dir, "/me/pictures");
    config_release(&c);
    assert_int_equal(notes.len, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_the_documented_ones),
        cmocka_unit_test(every_row_is_sound),
        cmocka_unit_test(command_line_in_both_spellings),
        cmocka_unit_test(what_is_wrong_gets_a_sentence),
        cmocka_unit_test(a_mode_takes_the_rest),
        cmocka_unit_test(later_sources_win),
        cmocka_unit_test(a_wrong_file_names_the_line),
        cmocka_unit_test(a_file_may_be_empty),
        cmocka_unit_test(printed_config_reads_back),
        cmocka_unit_test(help_names_every_option),
        cmocka_unit_test(folders_follow_home),
    };

    return RUN_TESTS(tests);
}
