/* A model as diffusers keeps it: the same picture as from one file, and every way in which such a folder can
 * be broken is a sentence. */
#include "base/file.h"
#include "engine/engine.h"
#include "engine/files/diffusers.h"
#include "engine/files/folder.h"
#include "engine/files/weights.h"

#include "small_engine.h"
#include "small_folder.h"
#include "unit.h"

#include <unistd.h>

/* ---- pictures ---- */

static bool on_image(void *user, const struct engine_image *image, struct err *err)
{
    struct buf *picture = user;

    (void)err;
    buf_append(picture, image->rgb, (size_t)image->width * (size_t)image->height * 3);
    return true;
}

static struct buf draw(struct engine_model *m)
{
    struct buf picture = {0};
    struct engine_events events = {.on_image = on_image, .user = &picture};
    struct engine_job job;
    struct err err = {0};

    engine_job_defaults(m, &job);
    job.prompt = "a red circle";
    job.width = job.height = 64;
    job.steps = 3;
    job.seed = 5;
    check(engine_generate(m, &job, &events, &err), &err);
    return picture;
}

static void a_folder_draws_what_the_file_draws(void **state)
{
    char *folder = small_folder_write();
    struct buf expected = draw(model), drawn;
    struct engine_model_info info, single;
    struct engine_model *loaded;
    struct err err = {0};

    (void)state;
    check(engine_model_load(&loaded, engine, folder, NULL, &err), &err);
    drawn = draw(loaded);
    assert_int_equal(drawn.len, expected.len);
    assert_memory_equal(drawn.data, expected.data, drawn.len);
    engine_model_info(loaded, &info);
    engine_model_info(model, &single);
    assert_string_equal(info.name, file_name(folder));
    assert_int_equal(info.parameters, single.parameters);
    engine_model_free(loaded);
    buf_release(&drawn);
    buf_release(&expected);
    small_folder_remove(folder);
}

/* Its second text encoder keeps Hugging Face's names and its matrices apart. */
static void a_folder_of_sdxl(void **state)
{
    char *folder = small_folder_write_sdxl();
    struct engine_model *single =
        small_engine_load(&(struct small_model){.listing = SMALL_SDXL_TENSORS});
    struct buf expected = draw(single), drawn;
    struct engine_model_info info;
    struct engine_model *loaded;
    struct err err = {0};

    (void)state;
    check(engine_model_load(&loaded, engine, folder, NULL, &err), &err);
    engine_model_info(loaded, &info);
    assert_string_equal(info.family, "sdxl");
    drawn = draw(loaded);
    assert_int_equal(drawn.len, expected.len);
    assert_memory_equal(drawn.data, expected.data, drawn.len);
    engine_model_free(loaded);
    engine_model_free(single);
    buf_release(&drawn);
    buf_release(&expected);
    small_folder_remove(folder);
}

static void every_tensor_has_its_name(void **state)
{
    char *folder = small_folder_write();
    char *single = small_model_write(&(struct small_model){0});
    struct weights_file *one, *many;
    struct err err = {0};

    (void)state;
    check(weights_file_open(&one, single, &err), &err);
    check(weights_file_open(&many, folder, &err), &err);
    assert_int_equal(weights_file_count(one), weights_file_count(many));
    for (size_t i = 0; i < weights_file_count(one); i++) {
        const struct weight *a = weights_file_at(one, i), *b = weights_file_at(many, i);

        assert_string_equal(a->name, b->name);
        assert_int_equal(a->bytes, b->bytes);
        assert_memory_equal(a->data, b->data, a->bytes);
    }
    weights_file_forget(many);
    assert_memory_equal(weights_file_at(many, 0)->data, weights_file_at(one, 0)->data,
                        weights_file_at(one, 0)->bytes);
    weights_file_close(one);
    weights_file_close(many);
    unlink(single);
    free(single);
    small_folder_remove(folder);
}

static void what_the_json_says(void **state)
{
    char *folder = small_folder_write();
    struct engine_model *loaded;
    struct engine_model_info info;
    struct err err = {0};

    (void)state;
    small_folder_put(folder, "scheduler/scheduler_config.json",
                     "{\"prediction_type\":\"v_prediction\"}");
    small_folder_put(folder, "model_index.json",
                     "{\"mysti.name\":\"v1.5 small\",\"mysti.default_steps\":7}");
    check(engine_model_load(&loaded, engine, folder, NULL, &err), &err);
    engine_model_info(loaded, &info);
    assert_string_equal(info.prediction, "v");
    assert_string_equal(info.name, "v1.5 small");
    assert_int_equal(info.default_steps, 7);
    engine_model_free(loaded);
    small_folder_remove(folder);
}

/* ---- names ---- */

static void expect_name(enum diffusers_part part, const char *const *learned,
                        const char *name, const char *expected)
{
    struct diffusers_blocks blocks = {0};
    struct buf ours = {0};

    for (; *learned; learned++)
        diffusers_learn(&blocks, *learned);
    diffusers_name(part, &blocks, name, &ours);
    assert_string_equal(buf_str(&ours), expected);
    buf_release(&ours);
}

/* SDXL's three levels, a distilled U-Net with one resnet in each, a middle without
 * attention. */
static void other_shapes_of_the_unet(void **state)
{
    static const char *const sdxl[] = {"down_blocks.0.resnets.1.x.weight",
                                       "down_blocks.0.downsamplers.0.conv.weight",
                                       "down_blocks.1.resnets.1.x.weight",
                                       "down_blocks.1.attentions.1.x.weight",
                                       "down_blocks.1.downsamplers.0.x.bias",
                                       "down_blocks.2.resnets.1.x.weight",
                                       "up_blocks.0.resnets.2.x.weight",
                                       "up_blocks.0.attentions.2.x.weight",
                                       "up_blocks.1.resnets.2.x.weight",
                                       "mid_block.attentions.0.x.weight",
                                       NULL};
    static const char *const one[] = {"down_blocks.0.resnets.0.x.weight",
                                      "down_blocks.0.downsamplers.0.x.weight",
                                      "up_blocks.0.resnets.1.x.weight", NULL};
    static const struct {
        const char *const *learned;
        const char *name, *expected;
    } rows[] = {
        {sdxl, "down_blocks.2.attentions.1.proj_in.bias",
         "input_blocks.8.1.proj_in.bias"},
        {sdxl, "down_blocks.1.downsamplers.0.conv.weight",
         "input_blocks.6.0.op.weight"},
        {sdxl, "up_blocks.2.resnets.1.conv2.weight",
         "output_blocks.7.0.out_layers.3.weight"},
        {sdxl, "up_blocks.0.upsamplers.0.conv.bias", "output_blocks.2.2.conv.bias"},
        {sdxl, "up_blocks.1.upsamplers.0.conv.bias", "output_blocks.5.1.conv.bias"},
        {sdxl, "add_embedding.linear_2.weight", "label_emb.0.2.weight"},
        {sdxl, "mid_block.resnets.1.norm1.bias", "middle_block.2.in_layers.0.bias"},
        {one, "down_blocks.1.resnets.0.norm1.bias",
         "input_blocks.3.0.in_layers.0.bias"},
        {one, "up_blocks.1.resnets.0.norm1.bias", "output_blocks.2.0.in_layers.0.bias"},
        {one, "mid_block.resnets.1.norm1.bias", "middle_block.1.in_layers.0.bias"},
        {one, "time_embedding.cond_proj.weight", "time_embed.cond_proj.weight"},
        {one, "time_embedding.another.weight", "time_embedding.another.weight"},
        {one, "down_blocks.99.resnets.0.norm1.bias",
         "down_blocks.99.resnets.0.norm1.bias"},
        {one, "down_blocks.0.resnets.4096.norm1.bias",
         "down_blocks.0.resnets.4096.norm1.bias"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        expect_name(DIFFUSERS_UNET, rows[i].learned, rows[i].name, rows[i].expected);
}

static void old_names_of_the_vae(void **state)
{
    static const char *const none[] = {NULL};

    (void)state;
    expect_name(DIFFUSERS_VAE, none, "encoder.mid_block.attentions.0.query.weight",
                "encoder.mid.attn_1.q.weight");
    expect_name(DIFFUSERS_VAE, none, "decoder.mid_block.attentions.0.proj_attn.bias",
                "decoder.mid.attn_1.proj_out.bias");
    expect_name(DIFFUSERS_VAE, none, "quant_conv.weight", "quant_conv.weight");
}

/* ---- broken folders ---- */

static void refuse(const char *folder, enum err_code code, const char *sentence)
{
    struct weights_file *file;
    struct err err = {0};

    assert_int_equal(weights_file_open(&file, folder, &err), -1);
    assert_int_equal(err.code, code);
    assert_true(!strncmp(err.message, folder, strlen(folder)));
    if (!strstr(err.message, sentence))
        fail_msg("'%s' lacks '%s'", err.message, sentence);
}

static void remove_file(const char *folder, const char *name)
{
    char *path = file_join(folder, name);

    assert_int_equal(unlink(path), 0);
    free(path);
}

static void broken_indexes(void **state)
{
    static const struct {
        const char *index, *sentence;
    } rows[] = {
        {"{\"weight_map\":{\"x\":\"../../secret.safetensors\"}}", "its name alone"},
        {"{\"weight_map\":{\"x\":\"..\"}}", "'..' for x"},
        {"{\"weight_map\":{\"x\":\"/etc/passwd\"}}", "its name alone"},
        {"{\"weight_map\":{\"x\":\"a/b.safetensors\"}}", "its name alone"},
        {"{\"weight_map\":{\"x\":\"\"}}", "its name alone"},
        {"{\"weight_map\":{\"x\":7}}", "names no file for x"},
        {"{\"weight_map\":{}}", "has no weight_map"},
        {"[]", "has no weight_map"},
        {"{\"weight_map\":", "is no JSON"},
        {"{\"weight_map\":{\"x\":\"gone.safetensors\"}}",
         "gone.safetensors: cannot open"},
        {"{\"weight_map\":{\"x\":\"config.json\"}}", "neither a safetensors"},
        {"{\"weight_map\":{\"x.weight\":\"" SMALL_FOLDER_SHARD_1 "\"}}",
         "says that tensor x.weight is in " SMALL_FOLDER_SHARD_1},
    };
    char *folder = small_folder_write();

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        small_folder_put(folder, SMALL_FOLDER_INDEX, rows[i].index);
        refuse(folder, i == 9 ? ERR_NOT_FOUND : ERR_BAD_FILE, rows[i].sentence);
    }
    small_folder_remove(folder);
}

static void broken_folders(void **state)
{
    char *folder = small_folder_write();
    struct engine_model *loaded;
    struct engine_job job;
    struct err err = {0};

    (void)state;
    remove_file(folder, "vae/diffusion_pytorch_model.safetensors");
    check(engine_model_load(&loaded, engine, folder, NULL, &err), &err);
    engine_job_defaults(loaded, &job);
    job.prompt = "a boat";
    assert_int_equal(engine_job_check(loaded, &job, &err), -1);
    assert_non_null(strstr(err.message, "has no VAE of its own"));
    engine_model_free(loaded);
    remove_file(folder, "unet/" SMALL_FOLDER_SHARD_2);
    refuse(folder, ERR_NOT_FOUND, SMALL_FOLDER_SHARD_2 ": cannot open");
    remove_file(folder, SMALL_FOLDER_INDEX);
    refuse(folder, ERR_BAD_FILE,
           "no weights in unet/ (it says it is a StableDiffusionPipeline)");
    small_folder_put(folder, "model_index.json", "{");
    refuse(folder, ERR_BAD_FILE, "its model_index.json is no JSON object");
    remove_file(folder, "model_index.json");
    refuse(folder, ERR_BAD_FILE, "a folder without a model_index.json");
    small_folder_remove(folder);
}

/* A link that leads back must not be followed for ever. */
static void a_folder_in_place_of_a_file(void **state)
{
    char *folder = small_folder_write();
    char *shard = file_join(folder, "unet/" SMALL_FOLDER_SHARD_2);

    (void)state;
    assert_int_equal(unlink(shard), 0);
    assert_int_equal(symlink(folder, shard), 0);
    refuse(folder, ERR_BAD_FILE, "is a folder, a model file was expected");
    free(shard);
    small_folder_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_folder_draws_what_the_file_draws),
        cmocka_unit_test(a_folder_of_sdxl),
        cmocka_unit_test(every_tensor_has_its_name),
        cmocka_unit_test(what_the_json_says),
        cmocka_unit_test(other_shapes_of_the_unet),
        cmocka_unit_test(old_names_of_the_vae),
        cmocka_unit_test(broken_indexes),
        cmocka_unit_test(broken_folders),
        cmocka_unit_test(a_folder_in_place_of_a_file),
    };

    return cmocka_run_group_tests(tests, small_engine_set_up, small_engine_tear_down);
}
