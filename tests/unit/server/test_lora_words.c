/* What a LoRA's file says of its use: the words of trainers, the captions' most frequent ones, and nothing where it is no such
 * file. */
#include "server/models/lora_words.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"

#include "unit.h"

#include <unistd.h>

static json_t *words_in(const char *header)
{
    struct buf file = {0};
    uint64_t len = strlen(header);
    json_t *words;

    buf_append(&file, &len, sizeof(len));
    buf_append_str(&file, header);
    words = lora_words_read(file.data, file.len);
    buf_release(&file);
    return words;
}

static void expect(const char *header, const char *expected)
{
    json_t *words = words_in(header), *wanted = json_loads(expected, 0, NULL);
    char *text = json_dumps(words, JSON_COMPACT);

    assert_non_null(wanted);
    if (!json_equal(words, wanted))
        fail_msg("%s, %s was expected", text, expected);
    free(text);
    json_decref(words);
    json_decref(wanted);
}

static void what_trainers_write(void **state)
{
    (void)state;
    expect(
        "{\"__metadata__\":{\"modelspec.title\":\"Ink\",\"ss_output_name\":\"ink_v2\","
        "\"modelspec.trigger_phrase\":\"ink "
        "style\",\"ss_base_model_version\":\"sd_v1\"},"
        "\"lora_unet_x.alpha\":{\"dtype\":\"F32\"",
        "{\"title\":\"Ink\",\"trigger\":\"ink style\",\"base\":\"sd_v1\"}");
    expect("{\"__metadata__\":{\"ss_output_name\":\"ink_v2\",\"other\":\"x\"}}",
           "{\"title\":\"ink_v2\"}");
}

static void words_of_captions(void **state)
{
    (void)state;
    expect("{\"__metadata__\":{\"ss_tag_frequency\":\"{\\\"10_ink\\\":{\\\"boat\\\":3,"
           "\\\"sea\\\":9,\\\"\\\":99},\\\"2_more\\\":{\\\"boat\\\":7,\\\"air\\\":9,"
           "\\\"none\\\":0}}\"}}",
           "{\"tags\":[\"boat\",\"air\",\"sea\"]}");
    expect("{\"__metadata__\":{\"ss_tag_frequency\":\"{\\\"a\\\":5}\",\"ss_output_"
           "name\":\"x\"}}",
           "{\"title\":\"x\"}");
}

static void at_most_so_many(void **state)
{
    struct buf header = {0};
    json_t *words;

    (void)state;
    buf_append_str(
        &header,
        "{\"__metadata__\":{\"ss_tag_frequency\":\"{\\\"a\\\":{\\\"first\\\":1000");
    for (int i = 0; i < 50; i++)
        buf_printf(&header, ",\\\"w%d\\\":%d", i, 500 - i);
    buf_append_str(&header, "}}\"}}");
    words = words_in(buf_str(&header));
    assert_int_equal(json_array_size(json_object_get(words, "tags")), LORA_TAGS_SHOWN);
    assert_string_equal(
        json_string_value(json_array_get(json_object_get(words, "tags"), 0)), "first");
    assert_string_equal(
        json_string_value(json_array_get(json_object_get(words, "tags"), 19)), "w18");
    json_decref(words);
    buf_release(&header);
}

static void nothing(void **state)
{
    static const char *const headers[] = {
        "",
        "{",
        "{\"__metadata__\":",
        "{\"__metadata__\":[]}",
        "{\"__metadata__\":{}}",
        "{\"__metadata__\":{\"other\":\"x\"}}",
        "{\"__metadata__\":{\"ss_output_name\":7}}",
        "{\"lora_unet_x.alpha\":{},\"__metadata__\":{\"ss_output_name\":\"x\"}}"};

    (void)state;
    for (size_t i = 0; i < sizeof(headers) / sizeof(*headers); i++)
        assert_null(words_in(headers[i]));
    assert_null(lora_words("/nowhere/x.safetensors"));
    assert_null(lora_words("/tmp"));
}

/* metadata that is longer than what is read at first */
static void a_long_head(void **state)
{
    char path[] = "/tmp/mysti-words-XXXXXX";
    struct buf file = {0};
    json_t *words;

    (void)state;
    close(mkstemp(path));
    buf_append(&file, &(uint64_t){100000}, 8);
    buf_append_str(&file, "{\"__metadata__\":{\"long\":\"");
    for (int i = 0; i < 99000; i++)
        buf_append_str(&file, "x");
    buf_append_str(&file, "\",\"modelspec.title\":\"at the end\"}}");
    assert_int_equal(file_write_atomic(path, file.data, file.len, 0600, NULL), 0);
    words = lora_words(path);
    assert_string_equal(json_string_value(json_object_get(words, "title")),
                        "at the end");
    json_decref(words);
    unlink(path);
    buf_release(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_trainers_write), cmocka_unit_test(words_of_captions),
        cmocka_unit_test(at_most_so_many),     cmocka_unit_test(nothing),
        cmocka_unit_test(a_long_head),
    };

    return RUN_TESTS(tests);
}
