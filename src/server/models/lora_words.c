/* lora_words: safetensors begins with the length of a JSON object whose first key is the metadata (the library that
 * everybody writes these files with puts it there), so the metadata alone is parsed, and not the list of tensors behind
 * it, which is longer. A file that has it elsewhere says nothing here.
 *
 * kohya's scripts count the captions' words per folder of pictures (ss_tag_frequency, JSON inside of the JSON); the
 * counts of a word are added up, and words as frequent as each other stand in the order of the alphabet. */
#include "server/models/lora_words.h"

#include "base/mem.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BEGIN "{\"__metadata__\":"
#define FIRST_READ ((size_t)64 << 10)
#define HEAD_MAX ((size_t)1 << 20)
#define TEXT_MAX 500 /* bytes of a value */
#define TAG_MAX 100

/* ---- the captions' words ---- */

struct tag {
    const char *text;
    json_int_t count;
};

static int by_count(const void *a, const void *b)
{
    const struct tag *x = a, *y = b;

    if (x->count != y->count)
        return x->count > y->count ? -1 : 1;
    return strcmp(x->text, y->text);
}

/* {"folder": {"word": 12}} -> {"word": 12} */
static json_t *add_up(const json_t *folders)
{
    json_t *sums = json_object(), *words, *count;
    const char *folder, *word;

    json_object_foreach((json_t *)(uintptr_t)folders, folder, words)
    {
        json_object_foreach(words, word, count)
        {
            json_int_t before = json_integer_value(json_object_get(sums, word));
            json_int_t more = json_integer_value(count);

            if (*word && strlen(word) <= TAG_MAX && more > 0 && before <= INT32_MAX &&
                more <= INT32_MAX)
                json_object_set_new(sums, word, json_integer(before + more));
        }
    }
    return sums;
}

static json_t *most_frequent(const char *text)
{
    json_t *folders = text ? json_loads(text, 0, NULL) : NULL;
    json_t *sums = add_up(folders), *list = json_array(), *count;
    struct tag *tags = mem_alloc((json_object_size(sums) + 1) * sizeof(*tags));
    size_t n = 0;
    const char *word;

    json_object_foreach(sums, word, count) tags[n++] =
        (struct tag){word, json_integer_value(count)};
    qsort(tags, n, sizeof(*tags), by_count);
    for (size_t i = 0; i < n && i < LORA_TAGS_SHOWN; i++)
        json_array_append_new(list, json_string(tags[i].text));
    free(tags);
    json_decref(sums);
    json_decref(folders);
    return list;
}

/* ---- the metadata ---- */

static void take(json_t *words, const char *key, const json_t *metadata,
                 const char *const *names)
{
    for (; *names; names++) {
        const char *text = json_string_value(json_object_get(metadata, *names));

        if (!text || !*text || strlen(text) > TEXT_MAX)
            continue;
        json_object_set_new(words, key, json_string(text));
        return;
    }
}

static json_t *words_of(const json_t *metadata)
{
    static const char *const title[] = {"modelspec.title", "ss_output_name", NULL};
    static const char *const trigger[] = {"modelspec.trigger_phrase", "trigger_word",
                                          "trigger_words", "instance_prompt", NULL};
    static const char *const base[] = {"ss_base_model_version",
                                       "modelspec.architecture", NULL};
    json_t *words = json_object(), *tags;

    take(words, "title", metadata, title);
    take(words, "trigger", metadata, trigger);
    take(words, "base", metadata, base);
    tags =
        most_frequent(json_string_value(json_object_get(metadata, "ss_tag_frequency")));
    if (json_array_size(tags))
        json_object_set(words, "tags", tags);
    json_decref(tags);
    if (json_object_size(words))
        return words;
    json_decref(words);
    return NULL;
}

json_t *lora_words_read(const void *head, size_t len)
{
    const size_t begin = 8 + strlen(BEGIN);
    json_t *metadata, *words;

    if (len <= begin || memcmp((const char *)head + 8, BEGIN, strlen(BEGIN)) != 0)
        return NULL;
    metadata = json_loadb((const char *)head + begin, len - begin,
                          JSON_DISABLE_EOF_CHECK, NULL);
    words = json_is_object(metadata) ? words_of(metadata) : NULL;
    json_decref(metadata);
    return words;
}

json_t *lora_words(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    char *head = mem_alloc(HEAD_MAX);
    ssize_t len = fd < 0 ? -1 : pread(fd, head, FIRST_READ, 0);
    json_t *words = len > 0 ? lora_words_read(head, (size_t)len) : NULL;

    if (!words && len == (ssize_t)FIRST_READ) { /* it may go on beyond that */
        len = pread(fd, head, HEAD_MAX, 0);
        words = len > 0 ? lora_words_read(head, (size_t)len) : NULL;
    }
    free(head);
    if (fd >= 0)
        close(fd);
    return words;
}
