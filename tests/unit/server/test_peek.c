/* The look at the head of a model file: both kinds, and every way in which a file can lie. */
#include "unit.h"

#include "base/buf.h"
#include "base/file.h"
#include "server/models/peek.h"

#include <assert.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[] = "/tmp/mysti-test-peek-XXXXXX"; /* of each run its own */

static void put_u32(struct buf *b, uint32_t n)
{
    unsigned char bytes[4] = {(unsigned char)n, (unsigned char)(n >> 8),
                              (unsigned char)(n >> 16), (unsigned char)(n >> 24)};

    buf_append(b, bytes, 4);
}

static void put_u64(struct buf *b, uint64_t n)
{
    put_u32(b, (uint32_t)n);
    put_u32(b, (uint32_t)(n >> 32));
}

static void put_string(struct buf *b, const char *s)
{
    put_u64(b, strlen(s));
    buf_append_str(b, s);
}

static void put_head(struct buf *b, uint32_t version, uint64_t tensors, uint64_t pairs)
{
    buf_append(b, "GGUF", 4);
    put_u32(b, version);
    put_u64(b, tensors);
    put_u64(b, pairs);
}

static void put_tensor(struct buf *b, const char *name, uint64_t offset)
{
    put_string(b, name);
    put_u32(b, 2);
    put_u64(b, 8);
    put_u64(b, 8);
    put_u32(b, 0);
    put_u64(b, offset);
}

static void put_architecture(struct buf *b, const char *name)
{
    put_string(b, "general.architecture");
    put_u32(b, 8);
    put_string(b, name);
}

/* A text model with a vocabulary, an array of numbers and a context length. */
static struct buf text_model(void)
{
    struct buf b = {0};

    put_head(&b, 3, 2, 4);
    put_architecture(&b, "llama");
    put_string(&b, "tokenizer.ggml.tokens");
    put_u32(&b, 9);
    put_u32(&b, 8);
    put_u64(&b, 300);
    for (int i = 0; i < 300; i++)
        put_string(&b, "token");
    put_string(&b, "some.numbers");
    put_u32(&b, 9);
    put_u32(&b, 6);
    put_u64(&b, 1000);
    buf_reserve(&b, 4000);
    memset(b.data + b.len, 0, 4000);
    b.len += 4000;
    put_string(&b, "llama.context_length");
    put_u32(&b, 4);
    put_u32(&b, 1024);
    put_tensor(&b, "token_embd.weight", 0);
    put_tensor(&b, "blk.0.attn_q.weight", 256);
    for (int i = 0; i < 64; i++)
        put_u64(&b, 0);
    return b;
}

static int peek(const struct buf *b, struct model_peek *ret, struct err *err)
{
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(b->data, 1, b->len, f), b->len);
    fclose(f);
    *err = (struct err){0};
    return model_peek(path, ret, err);
}

static void a_text_model(void **state)
{
    struct buf b = text_model();
    struct model_peek p;
    struct err err;

    (void)state;
    assert_int_equal(peek(&b, &p, &err), 0);
    assert_int_equal(p.kind, MODEL_TEXT);
    assert_int_equal(p.format, MODEL_GGUF);
    assert_string_equal(p.architecture, "llama");
    assert_int_equal(p.context, 1024);
    assert_int_equal(p.tensors, 2);
    assert_int_equal(p.size_bytes, b.len);
    buf_release(&b);
}

static void put_number(struct buf *b, const char *key, uint32_t value)
{
    put_string(b, key);
    put_u32(b, 4);
    put_u32(b, value);
}

static void put_list(struct buf *b, const char *key, uint32_t type,
                     const uint32_t *values, uint64_t count)
{
    put_string(b, key);
    put_u32(b, 9);
    put_u32(b, type);
    put_u64(b, count);
    for (uint64_t i = 0; i < count; i++)
        if (type == 7)
            buf_append(b, values[i] ? "\1" : "\0", 1);
        else
            put_u32(b, values[i]);
}

static struct model_peek peek_and_release(struct buf *b)
{
    struct model_peek p;
    struct err err;

    put_tensor(b, "token_embd.weight", 0);
    for (int i = 0; i < 64; i++)
        put_u64(b, 0);
    assert_int_equal(peek(b, &p, &err), 0);
    buf_release(b);
    *b = (struct buf){0};
    return p;
}

static struct buf a_model(const char *architecture, uint64_t more)
{
    struct buf b = {0};
    char key[64];

    put_head(&b, 3, 1, 4 + more);
    put_architecture(&b, architecture);
    snprintf(key, sizeof(key), "%s.attention.head_count", architecture);
    put_number(&b, key, 4);
    snprintf(key, sizeof(key), "%s.attention.sliding_window", architecture);
    put_number(&b, key, 1024);
    snprintf(key, sizeof(key), "%s.block_count", architecture);
    put_number(&b, key, 8);
    return b;
}

/* By the file's list, by its period, by the architecture, or not known: then all count in full. */
static void which_layers_have_a_window(void **state)
{
    static const uint32_t heads[] = {1, 2, 3, 4, 5, 6, 7, 8},
                          which[] = {1, 1, 0, 1, 1, 0, 1, 1};
    struct buf b = a_model("gemma3", 1);
    struct model_peek p;

    (void)state;
    put_number(&b, "gemma3.attention.head_count_kv", 2);
    p = peek_and_release(&b);
    assert_int_equal(p.kv_heads, 16);
    assert_int_equal(p.window_heads, 14); /* layer 5 of 0 to 7 has none */
    b = a_model("gemma3", 1);
    put_number(&b, "gemma3.attention.sliding_window_pattern", 2);
    p = peek_and_release(&b);
    assert_int_equal(p.kv_heads, 32); /* as many as heads, where none are said */
    assert_int_equal(p.window_heads, 16);
    b = a_model("smallthinker", 0); /* the first of four */
    p = peek_and_release(&b);
    assert_int_equal(p.window_heads, 24);
    b = a_model("unheard-of", 0);
    p = peek_and_release(&b);
    assert_int_equal(p.window_heads, 0);
    b = a_model("gemma4", 2);
    put_list(&b, "gemma4.attention.sliding_window_pattern", 7, which, 8);
    put_list(&b, "gemma4.attention.head_count_kv", 4, heads, 8);
    p = peek_and_release(&b);
    assert_int_equal(p.kv_heads, 36);
    assert_int_equal(p.window_heads, 36 - 3 - 6);
}

static void what_recurrent_layers_keep(void **state)
{
    static const uint32_t heads[] = {0, 0, 0, 2, 0, 0, 0, 2};
    struct buf b = a_model("mamba", 3);
    struct model_peek p;

    (void)state;
    put_number(&b, "mamba.ssm.conv_kernel", 4);
    put_number(&b, "mamba.ssm.inner_size", 128);
    put_number(&b, "mamba.ssm.state_size", 16);
    p = peek_and_release(&b);
    assert_int_equal(p.kv_heads, 0);
    assert_int_equal(p.state_bytes, 8 * (3 * 128 + 16 * 128) * 4);
    b = a_model("jamba", 4);
    put_list(&b, "jamba.attention.head_count_kv", 4, heads, 8);
    put_number(&b, "jamba.ssm.conv_kernel", 4);
    put_number(&b, "jamba.ssm.inner_size", 128);
    put_number(&b, "jamba.ssm.state_size", 16);
    p = peek_and_release(&b);
    assert_int_equal(p.kv_heads, 4);
    assert_int_equal(p.state_bytes, 6 * (3 * 128 + 16 * 128) * 4);
    b = a_model("qwen3next", 3); /* attention in each fourth layer */
    put_number(&b, "qwen3next.full_attention_interval", 4);
    put_number(&b, "qwen3next.attention.head_count_kv", 2);
    put_number(&b, "qwen3next.ssm.inner_size", 128);
    p = peek_and_release(&b);
    assert_int_equal(p.kv_heads, 4);
    b = a_model("mamba", 1);
    put_number(&b, "mamba.ssm.inner_size", 0x7fffffff); /* it lies */
    p = peek_and_release(&b);
    assert_int_equal(p.state_bytes, 0);
    b = a_model("deepseek2", 1);
    put_number(&b, "deepseek2.attention.key_length_mla", 192);
    p = peek_and_release(&b);
    assert_true(p.keeps_no_values);
}

/* What decides how a model is started, and whether its context can be kept. */
static void what_a_text_model_is_for(void **state)
{
    struct buf b = {0};
    struct model_peek p;
    struct err err;

    (void)state;
    put_head(&b, 3, 1, 4);
    put_architecture(&b, "qwen3");
    put_number(&b, "qwen3.pooling_type", 3);
    put_number(&b, "qwen3.attention.sliding_window", 512);
    put_number(&b, "qwen3.ssm.state_size", 16);
    put_tensor(&b, "token_embd.weight", 0);
    for (int i = 0; i < 64; i++)
        put_u64(&b, 0);
    assert_int_equal(peek(&b, &p, &err), 0);
    assert_int_equal(p.pooling, 3);
    assert_int_equal(p.sliding_window, 512);
    assert_true(p.is_recurrent);
    buf_release(&b);
    b = text_model();
    assert_int_equal(peek(&b, &p, &err), 0);
    assert_int_equal(p.pooling, -1);
    assert_int_equal(p.sliding_window, 0);
    assert_false(p.is_recurrent);
    buf_release(&b);
}

static void picture_models_by_architecture_and_by_tensors(void **state)
{
    struct buf b = {0};
    struct model_peek p;
    struct err err;

    (void)state;
    put_head(&b, 3, 1, 1);
    put_architecture(&b, "flux");
    put_tensor(&b, "anything", 0);
    put_u64(&b, 0);
    assert_int_equal(peek(&b, &p, &err), 0);
    assert_int_equal(p.kind, MODEL_PICTURE);
    buf_clear(&b);
    put_head(&b, 2, 1, 0); /* converters of picture models often write no metadata */
    put_tensor(&b, "model.diffusion_model.input_blocks.0.0.weight", 0);
    put_u64(&b, 0);
    assert_int_equal(peek(&b, &p, &err), 0);
    assert_int_equal(p.kind, MODEL_PICTURE);
    assert_string_equal(p.architecture, "");
    buf_clear(&b);
    put_head(&b, 3, 1, 1); /* a projector is neither */
    put_architecture(&b, "clip");
    put_tensor(&b, "v.patch_embd.weight", 0);
    put_u64(&b, 0);
    assert_int_equal(peek(&b, &p, &err), 0);
    assert_int_equal(p.kind, MODEL_UNKNOWN);
    buf_release(&b);
}

static void safetensors(void **state)
{
    static const char head[] =
        "{\"model.diffusion_model.out.2.bias\":{\"dtype\":\"F32\"}}";
    static const char lora[] = "{\"lora_unet_down.alpha\":{\"dtype\":\"F32\"}}";
    struct buf b = {0};
    struct model_peek p;
    struct err err;

    (void)state;
    put_u64(&b, sizeof(head) - 1);
    buf_append_str(&b, head);
    assert_int_equal(peek(&b, &p, &err), 0);
    assert_int_equal(p.kind, MODEL_PICTURE);
    assert_int_equal(p.format, MODEL_SAFETENSORS);
    buf_clear(&b);
    put_u64(&b, sizeof(lora) - 1);
    buf_append_str(&b, lora);
    assert_int_equal(peek(&b, &p, &err), 0);
    assert_int_equal(p.kind, MODEL_UNKNOWN);
    buf_clear(&b);
    put_u64(&b, 1000); /* longer than the file */
    buf_append_str(&b, head);
    assert_int_equal(peek(&b, &p, &err), -1);
    assert_int_equal(err.code, ERR_BAD_FILE);
    buf_release(&b);
}

/* The pickle is the first entry and stored as it is, so its names can be read. */
static void torch(void **state)
{
    static const char name[] = "model.diffusion_model.out.2.bias";
    struct buf b = {0};
    struct model_peek p;
    struct err err;

    (void)state;
    buf_append(&b, "PK\3\4\0\0", 6);
    buf_append_str(&b, "archive/data.pkl\x80\2}");
    assert_int_equal(peek(&b, &p, &err), 0);
    assert_int_equal(p.kind, MODEL_UNKNOWN);
    assert_int_equal(p.format, MODEL_TORCH);
    buf_append_str(&b, name);
    assert_int_equal(peek(&b, &p, &err), 0);
    assert_int_equal(p.kind, MODEL_PICTURE);
    buf_clear(&b);
    buf_append_str(&b, "PK\3\4 readme.txt");
    buf_append_str(&b, name);
    assert_int_equal(peek(&b, &p, &err), 0);
    assert_int_equal(p.kind, MODEL_UNKNOWN);
    buf_clear(&b);
    buf_append(&b, "\x80\2\x8a\n\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15);
    assert_int_equal(peek(&b, &p, &err), -1);
    assert_non_null(strstr(err.message, "older than 1.6"));
    buf_release(&b);
}

static void write_small(const char *folder, const char *name, size_t len)
{
    char *at = file_join(folder, name);
    struct buf bytes = {0};

    memset(buf_reserve(&bytes, len + 1), 'x', len);
    bytes.len = len;
    assert_int_equal(file_write_atomic(at, bytes.data, len, 0600, NULL), 0);
    buf_release(&bytes);
    free(at);
}

/* What counts are the files that would be read, not what else lies there. */
static void a_diffusers_folder(void **state)
{
    char folder[] = "/tmp/mysti-test-folder-XXXXXX";
    static const char *const files[] = {
        "unet/diffusion_pytorch_model.safetensors.index.json",
        "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
        "unet/other.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.bin",
        "text_encoder/model.fp16.safetensors",
        "model_index.json"};
    struct model_peek p;
    struct err err = {0};
    char *unet;

    (void)state;
    assert_non_null(mkdtemp(folder));
    for (int i = 0; i < 3; i++) {
        char *part = file_join(folder, i == 0   ? "unet"
                                       : i == 1 ? "vae"
                                                : "text_encoder");

        assert_int_equal(file_make_folder(part, 0700, NULL), 0);
        free(part);
    }
    for (size_t i = 0; i < 7; i++)
        write_small(folder, files[i], (size_t)1 << i);
    assert_int_equal(model_peek(folder, &p, &err), -1); /* no model_index.json yet */
    write_small(folder, files[7], 2);
    assert_int_equal(model_peek(folder, &p, &err), 0);
    assert_int_equal(p.kind, MODEL_PICTURE);
    assert_int_equal(p.format, MODEL_FOLDER);
    assert_int_equal(p.size_bytes, 2 + 4 + 16 + 64);
    unet = file_join(folder, files[0]);
    assert_int_equal(unlink(unet), 0);
    assert_int_equal(model_peek(folder, &p, &err), 0);
    assert_int_equal(p.kind, MODEL_UNKNOWN);
    free(unet);
    for (size_t i = 1; i < 8; i++) {
        char *at = file_join(folder, files[i]);

        unlink(at);
        free(at);
    }
    for (int i = 0; i < 3; i++) {
        char *part = file_join(folder, i == 0   ? "unet"
                                       : i == 1 ? "vae"
                                                : "text_encoder");

        rmdir(part);
        free(part);
    }
    assert_int_equal(rmdir(folder), 0);
}

static void what_is_no_file_is_refused(void **state)
{
    struct model_peek p;
    struct err err = {0};

    (void)state;
    assert_int_equal(model_peek("/nowhere/x.gguf", &p, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_int_equal(model_peek("/tmp", &p, &err), -1);
    assert_int_equal(err.code, ERR_BAD_FILE);
    assert_non_null(strstr(err.message, "/tmp is a folder"));
    assert_int_equal(model_peek("/dev/zero", &p, &err), -1);
    assert_int_equal(model_peek("/etc/passwd", &p, &err), -1);
    assert_non_null(
        strstr(err.message, "neither a GGUF, a safetensors nor a torch file"));
}

/* Cut anywhere inside head or data, it is never taken for whole. */
static void cut_files_are_refused(void **state)
{
    struct buf b = text_model();
    size_t whole = b.len;
    struct model_peek p;
    struct err err;

    (void)state;
    for (size_t len = 0; len < whole - 64 * 8 + 256; len += len < 400 ? 1 : 97) {
        b.len = len;
        if (peek(&b, &p, &err) == 0)
            fail_msg("a file cut to %zu of %zu bytes was taken", len, whole);
        assert_int_equal(err.code, ERR_BAD_FILE);
    }
    b.len = whole;
    buf_release(&b);
}

static void lies_about_sizes_are_refused(void **state)
{
    struct model_peek p;
    struct err err;
    struct buf b = {0};

    (void)state;
    put_head(&b, 3, 1, UINT64_MAX);
    assert_int_equal(peek(&b, &p, &err), -1);
    buf_clear(&b);
    put_head(&b, 3, UINT64_MAX, 0);
    assert_int_equal(peek(&b, &p, &err), -1);
    buf_clear(&b);
    put_head(&b, 9, 0, 0);
    assert_int_equal(peek(&b, &p, &err), -1);
    assert_non_null(strstr(err.message, "version 9"));
    for (int kind = 0; kind < 4; kind++) {
        buf_clear(&b);
        put_head(&b, 3, 1, 1);
        put_string(&b, "x");
        put_u32(&b, kind == 0 ? 8 : kind == 1 ? 77 : 9);
        if (kind >= 2) {
            put_u32(&b, kind == 2 ? 10 : 9); /* of numbers; of arrays */
        }
        put_u64(&b, UINT64_MAX / 4);
        for (int i = 0; i < 40; i++)
            put_u64(&b, 0);
        assert_int_equal(peek(&b, &p, &err), -1);
        assert_int_equal(err.code, ERR_BAD_FILE);
    }
    buf_release(&b);
}

/* Any single byte wrong: an answer or a sentence, never a crash (run with the sanitizers). */
static void flipped_bytes_end_well(void **state)
{
    struct buf b = text_model();
    struct model_peek p;
    struct err err;

    (void)state;
    for (size_t i = 0; i < b.len && i < 600; i++) {
        char was = b.data[i];

        b.data[i] = (char)(was ^ 0xff);
        if (peek(&b, &p, &err))
            assert_true(err.message[0] != '\0');
        b.data[i] = was;
    }
    buf_release(&b);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_model),
        cmocka_unit_test(what_a_text_model_is_for),
        cmocka_unit_test(which_layers_have_a_window),
        cmocka_unit_test(what_recurrent_layers_keep),
        cmocka_unit_test(picture_models_by_architecture_and_by_tensors),
        cmocka_unit_test(safetensors),
        cmocka_unit_test(torch),
        cmocka_unit_test(a_diffusers_folder),
        cmocka_unit_test(what_is_no_file_is_refused),
        cmocka_unit_test(cut_files_are_refused),
        cmocka_unit_test(lies_about_sizes_are_refused),
        cmocka_unit_test(flipped_bytes_end_well),
    };
    int fd = mkstemp(path);

    assert(fd >= 0);
    close(fd);
    return RUN_TESTS(tests);
}
