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
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define EXP(x) _Generic((REAL)0, float: expf, double: exp)(x)

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

/* ROWS rows by one panel; both vectors of every row stay in registers. */
#define DEFINE_TILE(ROWS)                                                                       \
    static void tile##ROWS(int depth, const REAL *x, const REAL *panel, const REAL *bias,        \
                           REAL out[][PANEL]) {                                                 \
        vec first[ROWS], second[ROWS];                                                          \
        for (int r = 0; r < ROWS; r++) first[r] = AT(bias), second[r] = AT(bias + LANES);       \
        for (int k = 0; k < depth; k++) {                                                       \
            const vec w0 = AT(panel + k * PANEL), w1 = AT(panel + k * PANEL + LANES);           \
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

static void (*const tiles[])(int, const REAL *, const REAL *, const REAL *, REAL (*)[PANEL]) = {
    0, tile1, tile2, tile3, tile4, tile5, tile6};

/* What becomes of the outputs of one row of a tile. */
static void finish(Finish how, const REAL *tile, REAL *out, int panel, int width) {
    if (how == GATE) { /* the first vector holds gates, the second what they let through */
        const int n = MIN(LANES, width - panel * LANES);
        for (int i = 0; i < n; i++)
            out[panel * LANES + i] = tile[i] / (1 + EXP(-tile[i])) * tile[LANES + i];
        return;
    }
    const int n = MIN(PANEL, width - panel * PANEL);
    if (how == STORE)
        memcpy(out + panel * PANEL, tile, n * sizeof(REAL));
    else
        for (int i = 0; i < n; i++) out[panel * PANEL + i] += tile[i];
}

static int num_panels(Finish how, int width) {
    const int each = how == GATE ? LANES : PANEL;
    return (width + each - 1) / each;
}

/* (rows, depth) by a matrix with `width` outputs; called by all threads. */
static void multiply(const REAL *x, int rows, int depth, const Matrix *matrix, Finish how,
                     REAL *out, int width) {
    const int panels = num_panels(how, width), chunks = (rows + CHUNK - 1) / CHUNK;
#pragma omp for schedule(dynamic, 2)
    for (int task = 0; task < chunks * panels; task++) {
        const int panel = task % panels, chunk = task / panels;
        const int start = rows * chunk / chunks, n = rows * (chunk + 1) / chunks - start;
        const int num_tiles = (n + TILE - 1) / TILE;
        for (int t = 0; t < num_tiles; t++) {
            const int row = start + n * t / num_tiles, end = start + n * (t + 1) / num_tiles;
            REAL tile[TILE][PANEL];
            tiles[end - row](depth, x + (size_t)row * depth,
                             matrix->panels + (size_t)panel * PANEL * depth,
                             matrix->bias + panel * PANEL, tile);
            for (int r = row; r < end; r++)
                finish(how, tile[r - row], out + (size_t)r * width, panel, width);
        }
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

/* Queries that share keys go together, some keys at a time: all in registers. */
enum {
    QUERIES = 3,
    ABREAST = 4,
    HEAD_VECS = HEAD / HEAD_LANES,
    MIXED = HEAD_VECS % 4 == 0 ? 4 : HEAD_VECS % 3 == 0 ? 3 : HEAD_VECS % 2 == 0 ? 2 : 1
};

/* The number of queries is a constant wherever these are called. */
#define INLINE static inline __attribute__((always_inline))

INLINE REAL sum_of(headvec v) {
    REAL sum = 0;
    for (int i = 0; i < HEAD_LANES; i++) sum += v[i];
    return sum;
}

/* Products of `num` queries with n keys. */
INLINE void score(const int num, const REAL *const *queries, const REAL *keys, int n, REAL scale,
                  REAL scores[][KEYS]) {
    int j = 0;
    for (; j + ABREAST <= n; j += ABREAST) {
        headvec sum[QUERIES][ABREAST] = {0};
#pragma GCC unroll 16
        for (int i = 0; i < HEAD; i += HEAD_LANES) {
            headvec key[ABREAST];
#pragma GCC unroll 4
            for (int k = 0; k < ABREAST; k++) key[k] = HEAD_AT(keys + (size_t)(j + k) * HEAD + i);
#pragma GCC unroll 3
            for (int q = 0; q < num; q++) {
                const headvec query = HEAD_AT(queries[q] + i);
#pragma GCC unroll 4
                for (int k = 0; k < ABREAST; k++) sum[q][k] += query * key[k];
            }
        }
#pragma GCC unroll 3
        for (int q = 0; q < num; q++)
            for (int k = 0; k < ABREAST; k++) scores[q][j + k] = sum_of(sum[q][k]) * scale;
    }
    for (; j < n; j++)
        for (int q = 0; q < num; q++) {
            headvec sum = {0};
            for (int i = 0; i < HEAD; i += HEAD_LANES)
                sum += HEAD_AT(queries[q] + i) * HEAD_AT(keys + (size_t)j * HEAD + i);
            scores[q][j] = sum_of(sum) * scale;
        }
}

/* out = out * keep + sum of weights * values, for each query; some vectors of the head at a time. */
INLINE void mix(const int num, REAL *const *outs, const REAL *keep, REAL weights[][KEYS],
                const REAL *values, int n) {
    for (int start = 0; start < HEAD; start += MIXED * HEAD_LANES) {
        headvec sum[QUERIES][MIXED];
#define EACH                                              \
    _Pragma("GCC unroll 3") for (int q = 0; q < num; q++) \
        _Pragma("GCC unroll 4") for (int k = 0; k < MIXED; k++)
        EACH sum[q][k] = keep[q] * HEAD_AT(outs[q] + start + k * HEAD_LANES);
        for (int j = 0; j < n; j++) {
            const REAL *value = values + (size_t)j * HEAD + start;
            EACH sum[q][k] += weights[q][j] * HEAD_AT(value + k * HEAD_LANES);
        }
        EACH HEAD_AT(outs[q] + start + k * HEAD_LANES) = sum[q][k];
    }
}

/* Softmax over blocks of keys as they come; `visible` keys for each query, the last sees most. */
INLINE void attend_block(const int num, const Model *model, const REAL *const *queries,
                         const int *visible, const REAL *keys, const REAL *values,
                         REAL *const *outs) {
    REAL largest[QUERIES], total[QUERIES] = {0}, keep[QUERIES], scores[QUERIES][KEYS];
    for (int q = 0; q < num; q++) memset(outs[q], 0, HEAD * sizeof(REAL));
    for (int first = 0; first < visible[num - 1]; first += KEYS) {
        const int n = MIN(KEYS, visible[num - 1] - first);
        score(num, queries, keys + (size_t)first * HEAD, n, (REAL)model->scale, scores);
        for (int q = 0; q < num; q++) {
            const int mine = MIN(n, visible[q] - first);
            for (int j = mine < 0 ? 0 : mine; j < n; j++) scores[q][j] = 0; /* weights */
            keep[q] = 1;
            if (mine <= 0) continue; /* this block of keys comes after the query */
            REAL most = first ? largest[q] : scores[q][0], sum = 0;
            for (int j = 0; j < mine; j++) most = scores[q][j] > most ? scores[q][j] : most;
            for (int j = 0; j < mine; j++) scores[q][j] = EXP(scores[q][j] - most);
            for (int j = 0; j < mine; j++) sum += scores[q][j];
            keep[q] = first ? EXP(largest[q] - most) : 0;
            total[q] = total[q] * keep[q] + sum, largest[q] = most;
        }
        mix(num, outs, keep, scores, values + (size_t)first * HEAD, n);
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
    const int panels = num_panels(STORE, width), num_tiles = (rows + TILE - 1) / TILE;
    for (int r = 0; r < rows; r++) chosen[r] = -1;
    REAL value[rows];
#pragma omp parallel num_threads(threads)
    {
        REAL most[rows];
        int where[rows];
        for (int r = 0; r < rows; r++) where[r] = -1;
#pragma omp for schedule(dynamic, 16)
        for (int panel = 0; panel < panels; panel++)
            for (int t = 0; t < num_tiles; t++) {
                const int row = rows * t / num_tiles, end = rows * (t + 1) / num_tiles;
                REAL tile[TILE][PANEL];
                tiles[end - row](depth, x + (size_t)row * depth,
                                 matrix->panels + (size_t)panel * PANEL * depth,
                                 matrix->bias + panel * PANEL, tile);
                for (int r = row; r < end; r++)
                    for (int i = 0; i < PANEL && panel * PANEL + i < width; i++)
                        if (where[r] < 0 || tile[r - row][i] > most[r])
                            most[r] = tile[r - row][i], where[r] = panel * PANEL + i;
            }
#pragma omp critical
        for (int r = 0; r < rows; r++)
            if (where[r] >= 0 &&
                (chosen[r] < 0 || most[r] > value[r] || (most[r] == value[r] && where[r] < chosen[r])))
                value[r] = most[r], chosen[r] = where[r];
    }
}
