/* One step of a Llama-type decoder over the new tokens of many streams, on a CPU.
 *
 * The same arithmetic as llama.py, operation by operation, for row counts at which a BLAS is slow
 * (one token of each of some streams) and with attention that reads the keys of every stream once,
 * in place. Compiled for the processor at hand by compiled.py, which defines
 *
 *   REAL   float or double
 *   HEAD   features of an attention head
 *
 * Weights come in panels of PANEL output features, depth-major: panel[k * PANEL + i]. Keys and
 * values are (slots, kv_heads, capacity, HEAD). Rows are the new tokens, one after the other.
 */

#include <math.h>
#include <omp.h>
#include <stddef.h>
#include <string.h>

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
#define LANES ((int)(BYTES / sizeof(REAL)))
#define PANEL (2 * LANES)
#define INLINE static inline __attribute__((always_inline))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define EXP(x) _Generic((REAL)0, float: exp_float, double: exp)(x)

/* e to the power of x, to 2 units in the last place, written so that loops of it become vectors.
 * (Cephes' polynomial; what the system offers as a vector may be many times as slow.) */
INLINE float exp_float(float x) {
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    const float n = rintf(x * 1.44269504088896341f);
    const float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    const union {
        int bits;
        float value;
    } power = {((int)n + 127) << 23};
    return (p * r * r + r + 1.0f) * power.value;
}

typedef REAL vec __attribute__((vector_size(BYTES), aligned(sizeof(REAL)), may_alias));
#define AT(p) (*(vec *)(p))

/* The widest vector that divides a head. */
#define HEAD_LANES (HEAD % LANES == 0 ? LANES : HEAD % (LANES / 2) == 0 ? LANES / 2 : 2)
typedef REAL headvec
    __attribute__((vector_size(HEAD_LANES * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));
#define HEAD_AT(p) (*(headvec *)(p))

enum { TILE = 6, CHUNK = 192, KEYS = 64 }; /* rows of a tile, of a chunk; keys looked at together */

typedef struct { /* new tokens of a stream, at most a few: a long run of them comes in pieces */
    int slot, row, count, past; /* past: tokens of the stream before the first of them */
} Piece;

typedef struct { /* panels, and as many biases as the panels have outputs */
    const REAL *panels, *bias;
} Matrix;

typedef struct {
    const REAL *attention_norm, *query_norm, *key_norm, *feed_norm; /* NULL: no norm of heads */
    Matrix qkv, out, gate_up, down;
} Layer;

typedef struct {
    int hidden, inner, heads, kv_heads, num_layers;
    double eps, scale;
    const Layer *layers;
    const REAL *norm;
} Model;

typedef enum { STORE, ADD, GATE } Finish;

int lanes(void) { return LANES; }

/* ---- products ------------------------------------------------------------------------------- */

/* ROWS rows by one panel, both vectors of every row in registers. Meanwhile the next panel is fetched
 * from memory, `step` bytes at a time: it would not come in the shadow of the arithmetic by itself. */
#define DEFINE_TILE(ROWS)                                                                       \
    static void tile##ROWS(int depth, const REAL *x, const REAL *panel, const REAL *bias,       \
                           REAL out[][PANEL], const char *next, int step) {                     \
        vec first[ROWS], second[ROWS];                                                          \
        for (int r = 0; r < ROWS; r++) first[r] = AT(bias), second[r] = AT(bias + LANES);       \
        for (int k = 0; k < depth; k++) {                                                       \
            const vec w0 = AT(panel + k * PANEL), w1 = AT(panel + k * PANEL + LANES);           \
            __builtin_prefetch(next + (size_t)k * step);                                        \
            _Pragma("GCC unroll 8") for (int r = 0; r < ROWS; r++) {                            \
                const vec value = (vec){0} + x[(size_t)r * depth + k];                          \
                first[r] += value * w0, second[r] += value * w1;                                \
            }                                                                                   \
        }                                                                                       \
        for (int r = 0; r < ROWS; r++) AT(out[r]) = first[r], AT(out[r] + LANES) = second[r];   \
    }
DEFINE_TILE(1)
DEFINE_TILE(2)
DEFINE_TILE(3)
DEFINE_TILE(4)
DEFINE_TILE(5)
DEFINE_TILE(6)

static void (*const tiles[])(int, const REAL *, const REAL *, const REAL *, REAL (*)[PANEL],
                             const char *, int) = {0,     tile1, tile2, tile3,
                                                   tile4, tile5, tile6};

typedef struct { /* rows by one panel, a tile after the other */
    int index, row, end;
    REAL out[TILE][PANEL];
} Tile;

/* Compute the next tile of rows `start` to `end` by a panel; 0 if there is none. */
static int next_tile(Tile *tile, const REAL *x, int start, int end, int depth,
                     const Matrix *matrix, int panel) {
    const int n = end - start, count = (n + TILE - 1) / TILE, t = tile->index++;
    if (t == count) return 0;
    tile->row = start + n * t / count, tile->end = start + n * (t + 1) / count;
    const REAL *weights = matrix->panels + (size_t)panel * PANEL * depth;
    const int step = (PANEL * (int)sizeof(REAL) + count - 1) / count; /* all tiles, all of it */
    const char *next = (const char *)(weights + (size_t)PANEL * depth) + (size_t)t * depth * step;
    tiles[tile->end - tile->row](depth, x + (size_t)tile->row * depth, weights,
                                 matrix->bias + panel * PANEL, tile->out, next, step);
    return 1;
}

/* Neighbouring panels that a thread takes at once: few enough to share them out evenly. */
static int share(int panels, int threads) { return panels < 8 * threads ? 1 : panels / (4 * threads); }

/* What becomes of n outputs of one row of a tile; n is a constant but for the last panel. */
INLINE void finish_some(Finish how, const REAL *tile, REAL *out, const int n) {
    if (how == GATE) /* the first vector holds gates, the second what they let through */
        for (int i = 0; i < n; i++) out[i] = tile[i] / (1 + EXP(-tile[i])) * tile[LANES + i];
    else if (how == ADD)
        for (int i = 0; i < n; i++) out[i] += tile[i];
    else
        memcpy(out, tile, n * sizeof(REAL));
}

INLINE void finish(const Finish how, const REAL *tile, REAL *out, int panel, int width) {
    const int each = how == GATE ? LANES : PANEL, n = width - panel * each;
    if (n >= each)
        finish_some(how, tile, out + panel * each, each);
    else
        finish_some(how, tile, out + panel * each, n);
}

static int num_panels(Finish how, int width) {
    const int each = how == GATE ? LANES : PANEL;
    return (width + each - 1) / each;
}

/* (rows, depth) by a matrix with `width` outputs; called by all threads. */
static void multiply(const REAL *x, int rows, int depth, const Matrix *matrix, Finish how,
                     REAL *out, int width) {
    const int panels = num_panels(how, width), chunks = (rows + CHUNK - 1) / CHUNK;
#pragma omp for schedule(dynamic, share(panels, omp_get_num_threads()))
    for (int task = 0; task < chunks * panels; task++) {
        const int panel = task % panels, chunk = task / panels;
        const int start = rows * chunk / chunks, end = rows * (chunk + 1) / chunks;
        Tile tile = {0};
        while (next_tile(&tile, x, start, end, depth, matrix, panel))
            for (int r = tile.row; r < tile.end; r++)
                finish(how, tile.out[r - tile.row], out + (size_t)r * width, panel, width);
    }
}

/* ---- norms and rotations -------------------------------------------------------------------- */

static void normalize_one(const REAL *x, const REAL *weight, int size, double eps, REAL *out) {
    REAL sum = 0;
    for (int i = 0; i < size; i++) sum += x[i] * x[i];
    const REAL factor = 1 / (REAL)sqrt(sum / size + (REAL)eps);
    for (int i = 0; i < size; i++) out[i] = x[i] * factor * weight[i];
}

static void normalize(const REAL *x, const REAL *weight, int rows, int size, double eps,
                      REAL *out) {
#pragma omp for schedule(static)
    for (int r = 0; r < rows; r++)
        normalize_one(x + (size_t)r * size, weight, size, eps, out + (size_t)r * size);
}

static void rotate(REAL *head, const REAL *cos, const REAL *sin) {
    for (int i = 0; i < HEAD / 2; i++) {
        const REAL a = head[i], b = head[i + HEAD / 2];
        head[i] = a * cos[i] - b * sin[i];
        head[i + HEAD / 2] = b * cos[i + HEAD / 2] + a * sin[i + HEAD / 2];
    }
}

/* Rotate queries and keys, and put keys and values where their stream keeps them. */
static void place(const Model *model, const Layer *layer, const Piece *pieces, int num_pieces,
                  REAL *qkv, REAL *keys, REAL *values, int capacity, const REAL *cos,
                  const REAL *sin) {
    const int heads = model->heads, kv_heads = model->kv_heads;
#pragma omp for schedule(dynamic, 4)
    for (int p = 0; p < num_pieces; p++)
        for (int i = 0; i < pieces[p].count; i++) {
            const size_t position = pieces[p].past + i;
            REAL *row = qkv + (size_t)(pieces[p].row + i) * (heads + 2 * kv_heads) * HEAD;
            for (int h = 0; h < heads + kv_heads; h++) {
                const REAL *norm = h < heads ? layer->query_norm : layer->key_norm;
                REAL *head = row + h * HEAD;
                if (norm) normalize_one(head, norm, HEAD, model->eps, head);
                rotate(head, cos + position * HEAD, sin + position * HEAD);
            }
            for (int h = 0; h < kv_heads; h++) {
                const size_t there =
                    (((size_t)pieces[p].slot * kv_heads + h) * capacity + position) * HEAD;
                memcpy(keys + there, row + (heads + h) * HEAD, HEAD * sizeof(REAL));
                memcpy(values + there, row + (heads + kv_heads + h) * HEAD, HEAD * sizeof(REAL));
            }
        }
}

/* ---- attention ------------------------------------------------------------------------------ */

enum {
    QUERIES = 3, /* that share keys and go together */
    HEAD_VECS = HEAD / HEAD_LANES,
    MIXED = HEAD_VECS % 8 == 0 ? 8 : HEAD_VECS % 4 == 0 ? 4 : HEAD_VECS % 3 == 0 ? 3 : 1
};

/* Products of `num` queries, a constant, with n keys, which are read in order. */
INLINE void score(const int num, const REAL *const *queries, const REAL *keys, int n, REAL scale,
                  REAL scores[][KEYS]) {
    for (int j = 0; j < n; j++) {
        headvec sum[QUERIES] = {0};
#pragma GCC unroll 16
        for (int i = 0; i < HEAD; i += HEAD_LANES) {
            const headvec key = HEAD_AT(keys + (size_t)j * HEAD + i);
#pragma GCC unroll 3
            for (int q = 0; q < num; q++) sum[q] += HEAD_AT(queries[q] + i) * key;
        }
        for (int q = 0; q < num; q++) {
            REAL total = 0;
            for (int i = 0; i < HEAD_LANES; i++) total += sum[q][i];
            scores[q][j] = total * scale;
        }
    }
}

/* out = out * keep + sum of weights * values; some vectors of the head at a time. */
static void mix(REAL *out, REAL keep, const REAL *weights, const REAL *values, int n) {
    for (int start = 0; start < HEAD; start += MIXED * HEAD_LANES) {
        headvec sum[MIXED];
        for (int i = 0; i < MIXED; i++) sum[i] = keep * HEAD_AT(out + start + i * HEAD_LANES);
        for (int j = 0; j < n; j++) {
            const REAL *value = values + (size_t)j * HEAD + start;
#pragma GCC unroll 8
            for (int i = 0; i < MIXED; i++) sum[i] += weights[j] * HEAD_AT(value + i * HEAD_LANES);
        }
        for (int i = 0; i < MIXED; i++) HEAD_AT(out + start + i * HEAD_LANES) = sum[i];
    }
}

/* Softmax over blocks of keys as they come; `visible` keys for each query, the last sees most. */
INLINE void attend_block(const int num, const Model *model, const REAL *const *queries,
                         const int *visible, const REAL *keys, const REAL *values,
                         REAL *const *outs) {
    REAL largest[QUERIES] = {0}, total[QUERIES] = {0}, scores[QUERIES][KEYS];
    for (int q = 0; q < num; q++) memset(outs[q], 0, HEAD * sizeof(REAL));
    for (int first = 0; first < visible[num - 1]; first += KEYS) {
        const int most_keys = MIN(KEYS, visible[num - 1] - first);
        score(num, queries, keys + (size_t)first * HEAD, most_keys, (REAL)model->scale, scores);
        for (int q = 0; q < num; q++) {
            const int n = MIN(KEYS, visible[q] - first);
            if (n <= 0) continue; /* this block of keys comes after the query */
            REAL most = first ? largest[q] : scores[q][0], sum = 0;
            for (int j = 0; j < n; j++) most = scores[q][j] > most ? scores[q][j] : most;
            for (int j = 0; j < n; j++) scores[q][j] = EXP(scores[q][j] - most);
            for (int j = 0; j < n; j++) sum += scores[q][j];
            const REAL keep = first ? EXP(largest[q] - most) : 0;
            mix(outs[q], keep, scores[q], values + (size_t)first * HEAD, n);
            total[q] = total[q] * keep + sum, largest[q] = most;
        }
    }
    for (int q = 0; q < num; q++)
        for (int i = 0; i < HEAD; i++) outs[q][i] /= total[q];
}

/* The queries of a piece that share one head of keys. */
static void attend_one(const Model *model, const Piece *piece, int kv_head, const REAL *qkv,
                       const REAL *keys, const REAL *values, REAL *mixed) {
    const int group = model->heads / model->kv_heads, all = piece->count * group;
    const size_t stride = (size_t)(model->heads + 2 * model->kv_heads) * HEAD;
    const int blocks = (all + QUERIES - 1) / QUERIES;
    for (int b = 0; b < blocks; b++) {
        const int start = all * b / blocks, num = all * (b + 1) / blocks - start;
        const REAL *queries[QUERIES];
        REAL *outs[QUERIES];
        int visible[QUERIES];
        for (int q = 0; q < num; q++) {
            const int i = (start + q) / group, head = kv_head * group + (start + q) % group;
            queries[q] = qkv + (piece->row + i) * stride + head * HEAD;
            outs[q] = mixed + ((size_t)(piece->row + i) * model->heads + head) * HEAD;
            visible[q] = piece->past + i + 1;
        }
        if (num == 3)
            attend_block(3, model, queries, visible, keys, values, outs);
        else if (num == 2)
            attend_block(2, model, queries, visible, keys, values, outs);
        else
            attend_block(1, model, queries, visible, keys, values, outs);
    }
}

static void attend(const Model *model, const Piece *pieces, int num_pieces, const REAL *qkv,
                   const REAL *keys, const REAL *values, int capacity, REAL *mixed) {
    const int kv_heads = model->kv_heads;
#pragma omp for schedule(dynamic, 1)
    for (int task = 0; task < num_pieces * kv_heads; task++) {
        const Piece *piece = pieces + task / kv_heads;
        const int head = task % kv_heads;
        const size_t there = ((size_t)piece->slot * kv_heads + head) * capacity * HEAD;
        attend_one(model, piece, head, qkv, keys + there, values + there, mixed);
    }
}

/* ---- what is called from Python ------------------------------------------------------------- */

/* Numbers that forward needs to write on, for each row. */
int work_per_row(const Model *model) {
    const int wide = (2 * model->heads + 2 * model->kv_heads) * HEAD;
    return model->hidden + wide + model->inner;
}

/* Feed rows of embeddings to all layers and the final norm, in place. */
void forward(const Model *model, REAL *x, int rows, const Piece *pieces, int num_pieces,
             REAL *const *keys, REAL *const *values, int capacity, const REAL *cos,
             const REAL *sin, REAL *work, int threads) {
    const int hidden = model->hidden, heads = model->heads;
    const int wide = (heads + 2 * model->kv_heads) * HEAD;
    REAL *h = work, *qkv = h + (size_t)rows * hidden, *mixed = qkv + (size_t)rows * wide;
    REAL *inner = mixed + (size_t)rows * heads * HEAD;
#pragma omp parallel num_threads(threads)
    for (int index = 0; index < model->num_layers; index++) {
        const Layer *layer = model->layers + index;
        normalize(x, layer->attention_norm, rows, hidden, model->eps, h);
        multiply(h, rows, hidden, &layer->qkv, STORE, qkv, wide);
        place(model, layer, pieces, num_pieces, qkv, keys[index], values[index], capacity, cos,
              sin);
        attend(model, pieces, num_pieces, qkv, keys[index], values[index], capacity, mixed);
        multiply(mixed, rows, heads * HEAD, &layer->out, ADD, x, hidden);
        normalize(x, layer->feed_norm, rows, hidden, model->eps, h);
        multiply(h, rows, hidden, &layer->gate_up, GATE, inner, model->inner);
        multiply(inner, rows, model->inner, &layer->down, ADD, x, hidden);
        if (index == model->num_layers - 1)
            normalize(x, model->norm, rows, hidden, model->eps, x);
    }
}

/* The output with the largest product, for every row; the first of several. */
void best(const REAL *x, int rows, int depth, const Matrix *matrix, int width, int *chosen,
          int threads) {
    const int panels = num_panels(STORE, width);
    REAL value[rows];
    for (int r = 0; r < rows; r++) chosen[r] = -1;
#pragma omp parallel num_threads(threads)
    {
        REAL most[rows];
        int where[rows];
        for (int r = 0; r < rows; r++) where[r] = -1;
#pragma omp for schedule(dynamic, share(panels, threads))
        for (int panel = 0; panel < panels; panel++) {
            Tile tile = {0};
            while (next_tile(&tile, x, 0, rows, depth, matrix, panel))
                for (int r = tile.row; r < tile.end; r++)
                    for (int i = 0; i < PANEL && panel * PANEL + i < width; i++)
                        if (where[r] < 0 || tile.out[r - tile.row][i] > most[r])
                            most[r] = tile.out[r - tile.row][i], where[r] = panel * PANEL + i;
        }
#pragma omp critical
        for (int r = 0; r < rows; r++)
            if (where[r] >= 0 && (chosen[r] < 0 || most[r] > value[r] ||
                                  (most[r] == value[r] && where[r] < chosen[r])))
                value[r] = most[r], chosen[r] = where[r];
    }
}
