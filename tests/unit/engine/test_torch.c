/* What torch.save writes: what is read from it, that nothing in it is run, and the one
 * sentence that each kind of broken or hostile file gets. */
#include "engine/files/reader.h"

#include "refused_file.h"
#include "torch_file.h"
#include "unit.h"

#include <string.h>

#define ODICT "ccollections\nOrderedDict\n)R"

static const float numbers[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};

/* A file whose pickle ends the dictionary that it has begun; takes the pickle over.
 * Storage "0" has twelve floats, storage "1" four halves. */
static struct buf file_of(struct buf *pickle)
{
    static const uint16_t halves[] = {0x3c00, 0x4000, 0x4200, 0x4400}; /* 1, 2, 3, 4 */
    struct zip_writer zip = {0};

    zip_writer_add(&zip, "archive/data.pkl", pickle->data, pickle->len);
    zip_writer_add(&zip, "archive/byteorder", "little", 6);
    zip_writer_add(&zip, "archive/data/0", numbers, sizeof(numbers));
    zip_writer_add(&zip, "archive/data/1", halves, sizeof(halves));
    zip_writer_add(&zip, "archive/version", "3\n", 2);
    buf_release(pickle);
    return zip_writer_end(&zip);
}

static struct weights_file *open_or_fail(const struct buf *bytes)
{
    struct weights_file *file = NULL;
    struct err err = {0};

    if (weights_memory_open(&file, bytes->data, bytes->len, &err))
        fail_msg("%s", err.message);
    return file;
}

static void put_tensor(struct buf *pickle, const char *name,
                       const struct torch_tensor *t)
{
    put_pickle_text(pickle, name);
    put_torch_tensor(pickle, t);
}

/* A file with one tensor, "w". */
static struct buf one(const struct torch_tensor *t)
{
    struct buf pickle = {0};

    buf_append_str(&pickle, PICKLE_BEGIN PICKLE_DICT_BEGIN);
    put_tensor(&pickle, "w", t);
    buf_append_str(&pickle, "u.");
    return file_of(&pickle);
}

static void expect_values(const struct weights_file *file, const char *name,
                          const float *values, size_t count)
{
    const struct weight *w = weights_file_find(file, name);
    float read[12];

    if (!w)
        fail_msg("there is no tensor %s", name);
    assert_int_equal(weight_count(w), count);
    weight_to_f32(w, 0, count, read);
    assert_memory_equal(read, values, count * sizeof(*read));
}

/* ---- good files ---- */

static const unsigned long s12[] = {12}, s34[] = {3, 4}, s2[] = {2}, s4[] = {4};

/* As a training program leaves it: weights under state_dict, and much beside them. */
static struct buf checkpoint(int is_wide)
{
    struct zip_writer zip = {.is_wide = is_wide};
    struct buf p = {0};

    buf_append_str(&p, PICKLE_BEGIN "}q\1(");
    put_pickle_text(&p, "epoch");
    buf_append_str(&p, "K\7");
    put_pickle_text(&p, "pytorch-lightning_version");
    put_pickle_text(&p, "1.4.2");
    put_pickle_text(&p, "state_dict");
    buf_append_str(&p, ODICT "(");
    put_tensor(&p, "a", &(struct torch_tensor){"FloatStorage", "0", 12, 0, 2, s34, 0});
    put_tensor(&p, "b", &(struct torch_tensor){"HalfStorage", "1", 4, 2, 1, s2, 0});
    put_tensor(&p, "b.tied",
               &(struct torch_tensor){"HalfStorage", "1", 4, 2, 1, s2, 0});
    put_tensor(&p, "ids", &(struct torch_tensor){"LongStorage", "9", 4, 0, 1, s4, 0});
    buf_append_str(&p, "u}"); /* the attribute _metadata */
    put_pickle_text(&p, "_metadata");
    buf_append_str(&p, ODICT "sb");
    put_pickle_text(&p, "optimizer_states");
    buf_append_str(&p, "](}K\1");
    put_torch_tensor(&p, &(struct torch_tensor){"FloatStorage", "0", 12, 0, 1, s12, 0});
    buf_append_str(&p, "sNe");
    put_pickle_text(&p, "callbacks");
    buf_append_str(&p, "}cpytorch_lightning.callbacks.model_checkpoint\n"
                       "ModelCheckpoint\n");
    buf_append(&p, "G\x3f\xf8\0\0\0\0\0\0", 9); /* 1.5 */
    buf_append_str(&p, "su.");
    zip_writer_add(&zip, "archive/data.pkl", p.data, p.len);
    zip_writer_add(&zip, "archive/data/0", numbers, sizeof(numbers));
    zip_writer_add(&zip, "archive/data/1", "\0\x3c\0\x40\0\x42\0\x44", 8);
    buf_release(&p);
    return zip_writer_end(&zip);
}

static void test_reads_a_checkpoint(void **state)
{
    (void)state;
    for (int is_wide = 0; is_wide < 2; is_wide++) {
        struct buf bytes = checkpoint(is_wide);
        struct weights_file *file = open_or_fail(&bytes);

        assert_int_equal(weights_file_count(file), 4);
        assert_int_equal(weights_file_find(file, "a")->dim[0], 3);
        assert_int_equal(weights_file_find(file, "a")->dim[1], 4);
        expect_values(file, "a", numbers, 12);
        expect_values(file, "b", (float[]){3, 4}, 2);
        expect_values(file, "b.tied", (float[]){3, 4}, 2);
        assert_int_equal(weights_file_find(file, "ids")->type, WEIGHT_OTHER);
        assert_string_equal(weights_file_meta(file, "epoch"), "7");
        assert_string_equal(weights_file_meta(file, "pytorch-lightning_version"),
                            "1.4.2");
        weights_file_close(file);
        buf_release(&bytes);
    }
}

/* Transposed, in part, and with gaps: copied, in the order that the shape says. */
static void test_gathers_what_lies_apart(void **state)
{
    static const unsigned long s43[] = {4, 3}, turned[] = {1, 4}, s32[] = {3, 2},
                               gaps[] = {4, 2}, s1[] = {1, 2}, odd[] = {99, 1};
    struct buf p = {0}, bytes;
    struct weights_file *file;

    (void)state;
    buf_append_str(&p, PICKLE_BEGIN PICKLE_DICT_BEGIN);
    put_tensor(&p, "turned",
               &(struct torch_tensor){"FloatStorage", "0", 12, 0, 2, s43, turned});
    put_tensor(&p, "gaps",
               &(struct torch_tensor){"FloatStorage", "0", 12, 1, 2, s32, gaps});
    put_tensor(&p, "plain",
               &(struct torch_tensor){"FloatStorage", "0", 12, 5, 2, s1, odd});
    put_tensor(
        &p, "half",
        &(struct torch_tensor){"HalfStorage", "1", 4, 0, 1, s2, (unsigned long[]){3}});
    put_tensor(&p, "scalar",
               &(struct torch_tensor){"FloatStorage", "0", 12, 11, 0, 0, 0});
    buf_append_str(&p, "u.");
    bytes = file_of(&p);
    file = open_or_fail(&bytes);
    expect_values(file, "turned", (float[]){0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11}, 12);
    expect_values(file, "gaps", (float[]){1, 3, 5, 7, 9, 11}, 6);
    expect_values(file, "plain", (float[]){5, 6}, 2);
    expect_values(file, "half", (float[]){1, 4}, 2);
    expect_values(file, "scalar", (float[]){11}, 1);
    assert_false(weights_file_find(file, "turned")->is_mapped);
    weights_file_close(file);
    buf_release(&bytes);
}

/* A state_dict by itself, one that is the only entry, a dictionary within, a parameter. */
static void test_finds_the_weights(void **state)
{
    static const struct torch_tensor two = {"FloatStorage", "0", 12, 3, 1, s2, 0};
    struct weights_file *file;
    struct buf p = {0}, bytes;

    (void)state;
    buf_append_str(&p, PICKLE_BEGIN PICKLE_DICT_BEGIN);
    put_pickle_text(&p, "params_ema");
    buf_append_str(&p, ODICT "(");
    put_tensor(&p, "conv", &two);
    buf_append_str(&p, "uu.");
    bytes = file_of(&p);
    file = open_or_fail(&bytes);
    expect_values(file, "conv", (float[]){3, 4}, 2);
    weights_file_close(file);
    buf_release(&bytes);

    buf_append_str(&p, PICKLE_BEGIN PICKLE_DICT_BEGIN);
    put_pickle_text(&p, "string_to_param");
    buf_append_str(&p, "}(");
    put_pickle_text(&p, "*");
    buf_append_str(&p, "ctorch._utils\n_rebuild_parameter\n(");
    put_torch_tensor(&p, &two);
    buf_append_str(&p, "\x88" ODICT "tRu");
    put_pickle_text(&p, "name");
    put_pickle_text(&p, "cat");
    buf_append_str(&p, "u.");
    bytes = file_of(&p);
    file = open_or_fail(&bytes);
    expect_values(file, "string_to_param.*", (float[]){3, 4}, 2);
    assert_string_equal(weights_file_meta(file, "name"), "cat");
    weights_file_close(file);
    buf_release(&bytes);
}

/* ---- hostile pickles ---- */

static void test_runs_nothing(void **state)
{
    static const struct {
        const char *pickle, *sentence;
    } cases[] = {
        {"cposix\nsystem\nX\4\0\0\0", "asks for posix.system"},
        {"c__builtin__\neval\nX\4\0\0\0", "asks for __builtin__.eval"},
        {"cos\nsystem\n", "asks for os.system"},
        {"ctorch\nload\n", "asks for torch.load"},
        {"ctorch._utils\n_rebuild_tensor\n", "asks for torch._utils._rebuild_tensor,"},
        {"cnumpy\nload\n", "asks for numpy.load"},
        {"c\xff\nx\n", "without a proper name"},
        {"ios\nsystem\n", "opcode 0x69"}, /* INST */
        {"\x93", "opcode 0x93"},          /* STACK_GLOBAL */
        {"\x82\1", "opcode 0x82"},        /* EXT1 */
        {"Pfile\n", "opcode 0x50"},       /* PERSID */
        {"o", "opcode 0x6f"},             /* OBJ */
        {"\x92", "opcode 0x92"},          /* NEWOBJ_EX */
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct buf p = {0};

        buf_append_str(&p, PICKLE_BEGIN);
        buf_append_str(&p, cases[i].pickle);
        refuse_and_release(file_of(&p), cases[i].sentence);
    }
}

static void test_refuses_broken_pickles(void **state)
{
    static const struct {
        const char *pickle, *sentence;
    } cases[] = {
        {"\x80\4.", "protocol 4"},
        {"", "ends in the middle"},
        {"}", "ends in the middle"},
        {".", "not there"},
        {"(.", "not there"},
        {"N.", "no dictionary"},
        {"}.", "no tensors"},
        {"X\xff\xff\xff\xff", "ends in the middle"},
        {"cos", "ends in the middle"},
        {"t", "mark that is not there"},
        {"N\x86", "tuple of values"},
        {"(N\x86", "tuple of values"},
        {"R", "not there"},
        {"NR", "not there"},
        {"(R", "not there"},
        {"Q", "not there"},
        {"b", "not there"},
        {"Nb", "not there"},
        {"q\1", "not there"},
        {"h\1", "never made"},
        {"j\xff\xff\xff\xff", "never made"},
        {"Nr\xff\xff\xff\xff", "remembers"},
        {"Na", "fills a container"},
        {"NNa", "no container"},
        {"]NNs", "no container"},
        {"}(Nu", "fills a container"},
        {"u", "mark that is not there"},
        {"(u", "fills a container"},
        {"((u", "fills a container"},
        {"\x8a\11", "number of 9 bytes"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct buf p = {0};

        buf_append_str(&p, cases[i].pickle);
        refuse_and_release(file_of(&p), cases[i].sentence);
    }
}

/* A few kilobytes that ask for gigabytes or for hours. */
static void test_refuses_bombs(void **state)
{
    struct buf p = {0};

    (void)state;
    buf_append_str(&p, PICKLE_BEGIN);
    for (size_t i = 0; i < 3 << 19; i++)
        buf_append_str(&p, "}");
    refuse_and_release(file_of(&p), "more than 1048576 values");

    /* a dictionary of 4,000 entries, which is each of 4,000 entries */
    buf_append_str(&p, PICKLE_BEGIN "}(");
    put_pickle_text(&p, "k");
    buf_append_str(&p, "q\1}q\2(");
    for (int i = 0; i < 4000; i++)
        buf_append_str(&p, "h\1h\1");
    buf_append_str(&p, "u");
    for (int i = 0; i < 4000; i++)
        buf_append_str(&p, "h\1h\2");
    buf_append_str(&p, "u.");
    refuse_and_release(file_of(&p), "more than 131072 entries");

    /* into itself */
    buf_append_str(&p, PICKLE_BEGIN "}q\2");
    put_pickle_text(&p, "k");
    buf_append_str(&p, "h\2s.");
    refuse_and_release(file_of(&p), "no tensors");
}

static void test_refuses_broken_tensors(void **state)
{
    static const unsigned long zero[] = {0, 0}, s44[] = {4, 4}, s99[] = {99},
                               back[] = {UINT64_MAX}, far[] = {INT64_MAX},
                               wide[] = {INT64_MAX, INT64_MAX}, none[] = {0};
    struct buf p = {0}, bytes;
    struct weights_file *file;

    (void)state;
    refuse_and_release(
        one(&(struct torch_tensor){"FloatStorage", "7", 12, 0, 1, s12, 0}),
        "tensor w: its storage 7 is not in the archive");
    refuse_and_release(
        one(&(struct torch_tensor){"FloatStorage", "0", 13, 0, 1, s12, 0}),
        "its storage of 13 numbers has 48 bytes");
    refuse_and_release(
        one(&(struct torch_tensor){"FloatStorage", "0", INT64_MAX, 0, 1, s12, 0}),
        "numbers has 48 bytes");
    refuse_and_release(
        one(&(struct torch_tensor){"FloatStorage", "0", 12, 1, 1, s12, 0}),
        "beyond its storage");
    refuse_and_release(
        one(&(struct torch_tensor){"FloatStorage", "0", 12, INT64_MAX, 1, s12, 0}),
        "beyond its storage");
    refuse_and_release(
        one(&(struct torch_tensor){"FloatStorage", "0", 12, 0, 1, s99, 0}),
        "beyond its storage");
    refuse_and_release(
        one(&(struct torch_tensor){"FloatStorage", "0", 12, 0, 1, s2, far}),
        "beyond its storage");
    refuse_and_release(
        one(&(struct torch_tensor){"FloatStorage", "0", 12, 11, 1, s2, back}),
        "no size");
    refuse_and_release(
        one(&(struct torch_tensor){"FloatStorage", "0", 12, 0, 2, wide, 0}),
        "impossible");
    refuse_and_release(
        one(&(struct torch_tensor){"FloatStorage", "0", 12, 0, 2, s44, zero}),
        "elements that are repeated");
    refuse_and_release(one(&(struct torch_tensor){"FloatStorage", "0", 12, 0, 1,
                                                  (unsigned long[]){1UL << 40}, zero}),
                       "elements that are repeated");
    refuse_and_release(
        one(&(struct torch_tensor){"FloatStorage", "0", 12, 13, 1, none, 0}),
        "beyond its storage");
    refuse_and_release(one(&(struct torch_tensor){"Size", "0", 12, 0, 1, s12, 0}),
                       "storage is not described");

    bytes = one(&(struct torch_tensor){"FloatStorage", "0", 12, 12, 1, none, 0});
    file = open_or_fail(&bytes);
    assert_int_equal(weights_file_find(file, "w")->bytes, 0);
    weights_file_close(file);
    buf_release(&bytes);

    /* two of one name; a name with a NUL in it */
    buf_append_str(&p, PICKLE_BEGIN PICKLE_DICT_BEGIN);
    put_tensor(&p, "w", &(struct torch_tensor){"FloatStorage", "0", 12, 0, 1, s2, 0});
    put_tensor(&p, "w", &(struct torch_tensor){"FloatStorage", "0", 12, 2, 1, s2, 0});
    buf_append_str(&p, "u.");
    refuse_and_release(file_of(&p), "two tensors named w");
    buf_append_str(&p, PICKLE_BEGIN PICKLE_DICT_BEGIN);
    buf_append(&p, "X\3\0\0\0a\0b", 8);
    put_torch_tensor(&p, &(struct torch_tensor){"FloatStorage", "0", 12, 0, 1, s2, 0});
    buf_append_str(&p, "u.");
    refuse_and_release(file_of(&p), "no proper name");
}

/* Many turned tensors of one storage would each be a copy. */
static void test_copies_no_more_than_the_file(void **state)
{
    static const unsigned long s43[] = {4, 3}, turned[] = {1, 4};
    struct zip_writer zip = {0};
    struct buf p = {0};
    float *many = calloc(1 << 16, sizeof(*many));
    char name[8];

    (void)state;
    buf_append_str(&p, PICKLE_BEGIN PICKLE_DICT_BEGIN);
    for (int i = 0; i < 8; i++) {
        snprintf(name, sizeof(name), "%d", i);
        put_tensor(&p, name,
                   &(struct torch_tensor){"FloatStorage", "0", 1 << 16, 0, 2,
                                          (unsigned long[]){256, 256},
                                          (unsigned long[]){1, 256}});
    }
    put_tensor(&p, "small",
               &(struct torch_tensor){"FloatStorage", "0", 12, 0, 2, s43, turned});
    buf_append_str(&p, "u.");
    zip_writer_add(&zip, "data.pkl", p.data, p.len); /* no folder is fine */
    zip_writer_add(&zip, "data/0", many, sizeof(*many) << 16);
    buf_release(&p);
    free(many);
    refuse_and_release(zip_writer_end(&zip), "elements that are repeated");
}

/* ---- archives ---- */

static struct buf good(void)
{
    return one(&(struct torch_tensor){"FloatStorage", "0", 12, 0, 1, s12, 0});
}

/* Where these bytes are, the `nth` time. */
static size_t find(const struct buf *b, const char *bytes, size_t len, int nth)
{
    for (size_t i = 0; i + len <= b->len; i++)
        if (memcmp(b->data + i, bytes, len) == 0 && nth-- == 0)
            return i;
    fail_msg("not found");
    return 0;
}

/* Writes a number at `offset` behind the nth occurrence of a signature. */
static void patch(struct buf *b, const char *signature, int nth, size_t offset,
                  uint64_t value, size_t bytes)
{
    memcpy(b->data + find(b, signature, 4, nth) + offset, &value, bytes);
}

static void test_refuses_hostile_archives(void **state)
{
    static const struct {
        const char *signature;
        int nth;
        size_t offset;
        uint64_t value;
        size_t bytes;
        const char *sentence;
    } cases[] = {
        {"PK\1\2", 2, 10, 8, 2, "entry archive/data/0 is compressed"},
        {"PK\1\2", 2, 24, 4000000000, 4, "entry archive/data/0 is compressed"},
        {"PK\1\2", 2, 8, 1, 2, "encrypted"},
        {"PK\1\2", 2, 42, 0, 4, "another name in its own header"},
        {"PK\1\2", 2, 42, 5, 4, "is not at byte 5"},
        {"PK\1\2", 2, 42, 0xfffffff0, 4, "is not at byte 4294967280"},
        {"PK\1\2", 2, 42, 0xffffffff, 4, "needs 64-bit sizes"},
        {"PK\1\2", 1, 0, 0, 4, "shorter than it claims"},
        {"PK\1\2", 1, 28, 60000, 2, "shorter than it claims"},
        {"PK\3\4", 2, 28, 60000, 2, "runs into the directory"},
        {"PK\5\6", 0, 10, 60000, 2, "claims 60000 entries"},
        {"PK\5\6", 0, 10, 6, 2, "shorter than it claims"},
        {"PK\5\6", 0, 16, 0xffffff, 4, "does not end before its end record"},
        {"PK\5\6", 0, 12, 0xffffff, 4, "does not end before its end record"},
        {"PK\5\6", 0, 20, 7, 2, "truncated"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct buf b = good();

        patch(&b, cases[i].signature, cases[i].nth, cases[i].offset, cases[i].value,
              cases[i].bytes);
        refuse_and_release(b, cases[i].sentence);
    }
}

static void test_refuses_overlapping_entries(void **state)
{
    struct zip_writer zip = {0}, inner = {0};
    struct buf b = good();
    size_t at = find(&b, "archive/data/1", 14, 1); /* in the directory */

    (void)state;
    /* data/1 becomes a second data/0: the same header, found twice */
    b.data[at + 13] = '0';
    memcpy(b.data + at - 46 + 20, b.data + find(&b, "PK\1\2", 4, 2) + 20, 8);
    memcpy(b.data + at - 4, b.data + find(&b, "PK\1\2", 4, 2) + 42, 4);
    refuse_and_release(b, "share bytes");

    /* an entry that lies inside of another one's data, behind an empty one */
    zip_writer_add(&inner, "empty", numbers, 0);
    zip_writer_add(&inner, "inside", numbers, 48);
    zip_writer_add(&zip, "out", inner.file.data, inner.file.len);
    at = find(&zip.file, "PK\3\4", 4, 1);
    buf_append(&zip.directory, inner.directory.data, inner.directory.len);
    for (int i = 1; i <= 2; i++) { /* moved by as much as "out" was put before them */
        char *place = zip.directory.data + find(&zip.directory, "PK\1\2", 4, i) + 42;
        uint32_t moved;

        memcpy(&moved, place, 4);
        moved += (uint32_t)at;
        memcpy(place, &moved, 4);
        zip.count++;
    }
    buf_release(&inner.file);
    buf_release(&inner.directory);
    refuse_and_release(zip_writer_end(&zip), "entries out and inside share bytes");
}

static void test_refuses_other_archives(void **state)
{
    struct zip_writer zip = {0};
    struct buf b = {0};

    (void)state;
    zip_writer_add(&zip, "readme.txt", "hello", 5);
    refuse_and_release(zip_writer_end(&zip), "without data.pkl");
    zip_writer_add(&zip, "a/b/data.pkl", "}.", 2);
    refuse_and_release(zip_writer_end(&zip), "without data.pkl");

    zip_writer_add(&zip, "a/data.pkl", "}.", 2);
    zip_writer_add(&zip, "a/byteorder", "big", 3);
    refuse_and_release(zip_writer_end(&zip), "byte order");

    buf_append(&b, "\x80\2\x8a\n\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15);
    refuse_and_release(b, "older than 1.6");
}

static void test_refuses_truncated_files(void **state)
{
    struct buf b = good();

    (void)state;
    expect_cuts_refused(&b);
    b.len -= 30;
    expect_refusal(&b, "truncated");
    buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_a_checkpoint),
        cmocka_unit_test(test_gathers_what_lies_apart),
        cmocka_unit_test(test_finds_the_weights),
        cmocka_unit_test(test_runs_nothing),
        cmocka_unit_test(test_refuses_broken_pickles),
        cmocka_unit_test(test_refuses_bombs),
        cmocka_unit_test(test_refuses_broken_tensors),
        cmocka_unit_test(test_copies_no_more_than_the_file),
        cmocka_unit_test(test_refuses_hostile_archives),
        cmocka_unit_test(test_refuses_overlapping_entries),
        cmocka_unit_test(test_refuses_other_archives),
        cmocka_unit_test(test_refuses_truncated_files),
    };

    return RUN_TESTS(tests);
}
