/* A Llama's matrix products and what it does between them, in fp32 on a CPU; see kernels.py.

   Every sum over a row is taken by one thread in one order, whatever the other rows, their number
   and the threads are, so that results are batch-invariant to the bit. Vectors are written out and
   nothing is reordered by the compiler (no -ffast-math), since that order is what is promised.

   Arrays are dense and in C's order. Their dimensions: B sequences of T tokens, D values of a residual
   row, M of a hidden one, H query heads, G key heads, E values of a head, S slots with room for C
   tokens. A row is a sequence's token, or in matrix products a row of the matrix. */

#include <math.h>
#include <stdint.h>
#include <string.h>

/* Lanes of a vector; rows and columns of a product's tile, whose sums fill the CPU's registers. */
#if defined __AVX512F__
enum { LANES = 16, TILE = 8, PANEL = 3 * LANES };
#elif defined __AVX__
enum { LANES = 8, TILE = 6, PANEL = 2 * LANES };
#else
enum { LANES = 4, TILE = 8, PANEL = 3 * LANES };
#endif
enum { BLOCK = 64, WIDE = 4, MOST_ROWS = 8, VECTORS = PANEL / LANES };
/* How weights are held: fp32, bf16, or 8 bits with a scale for each GROUP inputs of a column. */
enum { FP32, BF16, INT8 };
/* That number, as in weights.py, and the rows of a panel's words that are fetched ahead. */
enum { GROUP = 64, AHEAD = 16 };
/* A prompt's attention: queries taken together, and the tile of its products. */
enum { QUERIES = 192, HEIGHT = 6, SPAN = (LANES == 16 ? 4 : 2) * LANES };

typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int masks __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

static inline lanes load(const float *from) { return *(const lanes *)from; }
static inline void store(float *to, lanes value) { *(lanes *)to = value; }
static inline lanes all(float value) { return value - (lanes){0}; }

static inline lanes larger(lanes a, lanes b) {
    masks first = a > b;
    return (lanes)(((masks)a & first) | ((masks)b & ~first));
}

static inline float sum(lanes value) {
    for (int half = LANES / 2; half; half /= 2)
        for (int lane = 0; lane < half; lane++) value[lane] += value[lane + half];
    return value[0];
}

static inline float dot(const float *a, const float *b, long count) {
    lanes total = {0};
    float rest = 0;
    long i = 0;
    for (; i + LANES <= count; i += LANES) total += load(a + i) * load(b + i);
    for (; i < count; i++) rest += a[i] * b[i];
    return sum(total) + rest;
}

/* e to the power of x, within 2 units in the last place; x is kept to -87 ... 88. */
static inline lanes power_of_e(lanes x) {
    const float round = 12582912; /* 1.5 * 2^23: a sum with it has no fraction */
    x = -larger(-larger(x, all(-87)), all(-88));
    lanes shifted = x * 1.44269504f + round, twos = shifted - round;
    lanes r = x - twos * 0.693359375f + twos * 2.12194440e-4f;
    lanes p = all(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1;
    return (lanes)((masks)p + ((masks)shifted << 23));
}

/* Columns of a packed panel, and inputs of a column that share a scale where weights have 8 bits. */
long panel(void) { return PANEL; }
long group(void) { return GROUP; }

/* The words (N, W) of a linear layer, the columns of each panel side by side: (N / PANEL, W, PANEL),
   zero beyond N. A word holds 1, 2 or 4 successive weights of a column. */
void pack(const uint32_t *words, uint32_t *packed, long outs, long count, int threads) {
#pragma omp parallel for num_threads(threads)
    for (long first = 0; first < outs; first += PANEL)
        for (long i = 0; i < count; i++)
            for (long out = first; out < first + PANEL; out++)
                packed[first * count + i * PANEL + out - first] = out < outs ? words[out * count + i] : 0;
}

/* Weights in a word. */
static inline long in_word(int format) { return format == FP32 ? 1 : format == BF16 ? 2 : 4; }

/* The weights at a place of some words, in fp32: as they are, or 8 bits times their scale. */
static inline __attribute__((always_inline)) lanes widen(masks words, int place, int format,
                                                         lanes scale) {
    if (format == FP32) return (lanes)words;
    if (format == BF16) return place ? (lanes)(words & ~0xffff) : (lanes)(words << 16);
    /* The 8 bits stand highest, which the scale makes up for. */
    return __builtin_convertvector(words << (24 - 8 * place) & ~0xffffff, lanes) * scale;
}

static inline __attribute__((always_inline)) void load_scale(lanes *scale, const float *scales,
                                                             int format) {
    for (int v = 0; v < VECTORS && format == INT8; v++) scale[v] = load(scales + v * LANES) * 0x1p-24f;
}

/* Some rows of y, in the columns of one panel: sums over K in K's order, from the bias on, or where
   there is `more` from what y holds. */
static inline __attribute__((always_inline)) void tile(const float *x, long x_row,
                                                       const uint32_t *panel, const float *scales,
                                                       const float *bias, int more, float *y,
                                                       long ins, long outs, long columns,
                                                       int format, int rows) {
    lanes total[MOST_ROWS][VECTORS], part[VECTORS], scale[VECTORS] = {0};
    masks words[VECTORS];
    float edge[PANEL] = {0};
    for (int row = 0; row < rows; row++) {
        const float *from = more ? y + row * outs : bias;
        if (more && columns < PANEL) from = memcpy(edge, from, columns * sizeof(float));
        for (int v = 0; v < VECTORS; v++) total[row][v] = from ? load(from + v * LANES) : all(0);
    }
    for (long first = 0; first < ins; first += GROUP, scales += PANEL) {
        long end = ins - first < GROUP ? ins : first + GROUP;
        load_scale(scale, scales, format);
        for (long i = first; i < end; i += in_word(format), panel += PANEL) {
            for (int v = 0; v < VECTORS; v++) {
                __builtin_prefetch(panel + AHEAD * PANEL + v * LANES);
                words[v] = ((const masks *)panel)[v];
            }
            for (int place = 0; place < in_word(format) && i + place < end; place++) {
                for (int v = 0; v < VECTORS; v++) part[v] = widen(words[v], place, format, scale[v]);
                for (int row = 0; row < rows; row++)
                    for (int v = 0; v < VECTORS; v++)
                        total[row][v] += x[row * x_row + i + place] * part[v];
            }
        }
    }
    for (int row = 0; row < rows; row++) {
        float *to = columns < PANEL ? edge : y + row * outs;
        for (int v = 0; v < VECTORS; v++) store(to + v * LANES, total[row][v]);
        if (columns < PANEL) memcpy(y + row * outs, edge, columns * sizeof(float));
    }
}

/* The same for any number of rows. */
static inline __attribute__((always_inline)) void tiles(const float *x, long x_row,
                                                        const uint32_t *panel, const float *scales,
                                                        const float *bias, int more, float *y,
                                                        long ins, long outs, long columns,
                                                        int format, long rows) {
    for (; rows > 0; rows -= TILE, x += TILE * x_row, y += TILE * outs)
        switch (rows < TILE ? rows : TILE) {
#define ROWS(n) \
    case n: tile(x, x_row, panel, scales, bias, more, y, ins, outs, columns, format, n); break
            ROWS(1); ROWS(2); ROWS(3); ROWS(4); ROWS(5); ROWS(6); ROWS(7); ROWS(8);
        }
}

/* The same of 8-bit weights, those of a group widened once for all rows. */
static void tiles_of_groups(const float *x, const uint32_t *panel, const float *scales,
                            const float *bias, float *y, long ins, long outs, long columns,
                            long rows) {
    float wide[GROUP * PANEL];
    lanes scale[VECTORS];
    for (long first = 0; first < ins; first += GROUP, scales += PANEL) {
        long count = ins - first < GROUP ? ins - first : GROUP;
        load_scale(scale, scales, INT8);
        for (long i = 0; i < count; i += in_word(INT8), panel += PANEL)
            for (int v = 0; v < VECTORS; v++) {
                __builtin_prefetch(panel + AHEAD * PANEL + v * LANES);
                masks words = ((const masks *)panel)[v];
                for (int place = 0; place < in_word(INT8); place++)
                    store(wide + (i + place) * PANEL + v * LANES, widen(words, place, INT8, scale[v]));
            }
        tiles(x + first, ins, (const uint32_t *)wide, 0, bias, first > 0, y, count, outs, columns,
              FP32, rows);
    }
}

/* y (B, N) = x (B, K) times the packed weights, plus the bias (N, padded as they are), if any. In 8
   bits the weights have scales (N / PANEL, K / GROUP, PANEL). However they are held, y is to the
   bit that of the same weights in fp32. */
void multiply(const float *x, const uint32_t *packed, const float *scales, const float *bias,
              float *y, long rows, long ins, long outs, int format, int threads) {
    long words = (ins + in_word(format) - 1) / in_word(format), groups = (ins + GROUP - 1) / GROUP;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (long first = 0; first < outs; first += PANEL) {
        long columns = outs - first < PANEL ? outs - first : PANEL;
        const uint32_t *panel = packed + first * words;
        const float *more = bias ? bias + first : 0, *scale = scales ? scales + first * groups : 0;
        float *to = y + first;
        if (format == FP32)
            tiles(x, ins, panel, 0, more, 0, to, ins, outs, columns, FP32, rows);
        else if (format == BF16)
            tiles(x, ins, panel, 0, more, 0, to, ins, outs, columns, BF16, rows);
        else if (rows <= 2 * TILE) /* for so few, widened for each tile anew is quicker */
            tiles(x, ins, panel, scale, more, 0, to, ins, outs, columns, INT8, rows);
        else
            tiles_of_groups(x, panel, scale, more, to, ins, outs, columns, rows);
    }
}

/* x (B, D) += y, unless there is none; out = x / sqrt(mean(x^2) + eps) * weight (D). */
void add_norm(float *x, const float *y, const float *weight, float *out, long rows, long size,
              float eps, int threads) {
#pragma omp parallel for num_threads(threads)
    for (long row = 0; row < rows; row++) {
        float *mine = x + row * size, *norm = out + row * size;
        if (y)
            for (long i = 0; i < size; i++) mine[i] += y[row * size + i];
        float scale = 1 / sqrtf(dot(mine, mine, size) / size + eps);
        for (long i = 0; i < size; i++) norm[i] = mine[i] * scale * weight[i];
    }
}

/* out (B, M) = silu(gate) * up, where gate and up lie side by side (B, 2 M). */
void silu_mul(const float *gate_up, float *out, long rows, long size, int threads) {
#pragma omp parallel for num_threads(threads)
    for (long row = 0; row < rows; row++) {
        const float *gate = gate_up + 2 * row * size, *up = gate + size;
        float *mine = out + row * size, last[LANES] = {0};
        long i = 0;
        for (; i + LANES <= size; i += LANES)
            store(mine + i, load(gate + i) / (1 + power_of_e(-load(gate + i))) * load(up + i));
        for (long j = i; j < size; j++) last[j - i] = gate[j];
        store(last, load(last) / (1 + power_of_e(-load(last))));
        for (long j = i; j < size; j++) mine[j] = last[j - i] * up[j];
    }
}

/* Apply RoPE to a head (E), by the cos and sin (E / 2 each) of its position. */
static inline void rotate_head(float *restrict to, const float *from, const float *angles,
                               long half) {
    const float *cos = angles, *sin = angles + half;
    for (long i = 0; i < half; i++) {
        float x1 = from[i], x2 = from[i + half];
        to[i] = x1 * cos[i] - x2 * sin[i];
        to[i + half] = x2 * cos[i] + x1 * sin[i];
    }
}

/* Apply RoPE to queries and keys of qkv (B, T, H + 2 G, E) by the angles (C, E) of their positions,
   which begin at each sequence's start. Queries go to (B, T, H, E), keys and values into the
   sequences' slots, each at an address of its own: keys (G, C, E), and behind them values. */
void rotate_into_slots(const float *qkv, const float *angles, const int64_t *slots,
                       const int64_t *starts, float *queries, const int64_t *addresses,
                       const int64_t *capacities, long rows, long tokens, long heads,
                       long kv_heads, long width, int threads) {
    long half = width / 2;
#pragma omp parallel for num_threads(threads)
    for (long item = 0; item < rows * tokens; item++) {
        const float *from = qkv + item * (heads + 2 * kv_heads) * width;
        long row = item / tokens, position = starts[row] + item % tokens;
        const float *angle = angles + position * width;
        long capacity = capacities[slots[row]];
        float *keys = (float *)addresses[slots[row]], *values = keys + kv_heads * capacity * width;
        for (long head = 0; head < heads; head++, from += width)
            rotate_head(queries + (item * heads + head) * width, from, angle, half);
        for (long head = 0; head < kv_heads; head++, from += width) {
            long to = (head * capacity + position) * width;
            rotate_head(keys + to, from, angle, half);
            memcpy(values + to, from + kv_heads * width, width * sizeof(float));
        }
    }
}

/* out (wide * LANES) = out * keep + the weighted values. */
static inline __attribute__((always_inline)) void mix(float *out, float keep, const float *weights,
                                                      const float *values, int count, long width,
                                                      int wide) {
    lanes total[WIDE];
    for (int w = 0; w < wide; w++) total[w] = load(out + w * LANES) * keep;
    for (int i = 0; i < count; i++)
        for (int w = 0; w < wide; w++)
            total[w] += weights[i] * load(values + i * width + w * LANES);
    for (int w = 0; w < wide; w++) store(out + w * LANES, total[w]);
}

/* Take up to BLOCK more tokens into a head's softmax: its top score, total weight and output. */
static void take(const float *query, const float *keys, const float *values, int count, long width,
                 float *top, float *total, float *out) {
    float weights[BLOCK];
    lanes best = all(*top), added = {0};
    for (int i = 0; i < count; i++) {
        for (long d = 0; d < width; d += LANES) __builtin_prefetch(values + i * width + d);
        weights[i] = dot(query, keys + i * width, width);
    }
    for (int i = count; i % LANES; i++) weights[i] = -INFINITY;
    for (int i = 0; i < count; i += LANES) best = larger(best, load(weights + i));
    float before = *top;
    for (int lane = 0; lane < LANES; lane++) *top = best[lane] > *top ? best[lane] : *top;
    float keep = power_of_e(all(before - *top))[0];
    for (int i = 0; i < count; i += LANES) {
        lanes weight = power_of_e(load(weights + i) - *top);
        store(weights + i, weight);
        added += weight;
    }
    *total = *total * keep + sum(added);
    long d = 0;
    for (; d + WIDE * LANES <= width; d += WIDE * LANES)
        mix(out + d, keep, weights, values + d, count, width, WIDE);
    for (; d + LANES <= width; d += LANES) mix(out + d, keep, weights, values + d, count, width, 1);
    for (; d < width; d++) {
        out[d] *= keep;
        for (int i = 0; i < count; i++) out[d] += weights[i] * values[i * width + d];
    }
}

/* Attention of queries (B, H, E), one token a sequence, to what the sequences' slots hold, the token
   at the start included: out (B, H, E). `order` names the sequences, the longest first, so that the
   threads end together. */
void attend(const float *queries, const int64_t *addresses, const int64_t *capacities,
            const int64_t *order, const int64_t *slots, const int64_t *starts, float *out, long rows,
            long heads, long kv_heads, long width, float scaling, int threads) {
    long shared = heads / kv_heads;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (long item = 0; item < rows * kv_heads; item++) {
        long row = order[item / kv_heads], head = item % kv_heads, tokens = starts[row] + 1;
        long capacity = capacities[slots[row]], slot = head * capacity * width;
        const float *keys = (const float *)addresses[slots[row]];
        const float *values = keys + kv_heads * capacity * width;
        long first = (row * heads + head * shared) * width;
        float query[shared * width], top[shared], total[shared], *mine = out + first;
        for (long i = 0; i < shared * width; i++) query[i] = queries[first + i] * scaling, mine[i] = 0;
        for (long h = 0; h < shared; h++) top[h] = -INFINITY, total[h] = 0;
        for (long token = 0; token < tokens; token += BLOCK) {
            int count = tokens - token < BLOCK ? tokens - token : BLOCK;
            long block = slot + token * width;
            for (long h = 0; h < shared; h++)
                take(query + h * width, keys + block, values + block, count, width, top + h,
                     total + h, mine + h * width);
        }
        for (long h = 0; h < shared; h++)
            for (long d = 0; d < width; d++) mine[h * width + d] /= total[h];
    }
}

/* y (R, SPAN) = x (R, K) times m (K, SPAN), added to what y holds where there is `more`. */
static inline __attribute__((always_inline)) void part_of_product(const float *x, long x_row,
                                                                  const float *m, long m_row,
                                                                  float *y, long y_row, long count,
                                                                  int more, int rows) {
    lanes total[HEIGHT][SPAN / LANES], part[SPAN / LANES];
    for (int row = 0; row < rows; row++)
        for (int v = 0; v < SPAN / LANES; v++)
            total[row][v] = more ? load(y + row * y_row + v * LANES) : all(0);
    for (long i = 0; i < count; i++, m += m_row) {
        for (int v = 0; v < SPAN / LANES; v++) part[v] = load(m + v * LANES);
        for (int row = 0; row < rows; row++)
            for (int v = 0; v < SPAN / LANES; v++) total[row][v] += x[row * x_row + i] * part[v];
    }
    for (int row = 0; row < rows; row++)
        for (int v = 0; v < SPAN / LANES; v++) store(y + row * y_row + v * LANES, total[row][v]);
}

/* The same for columns that are a multiple of SPAN and any number of rows. */
static void product(const float *x, long x_row, const float *m, long m_row, float *y, long y_row,
                    long count, int more, long rows, long columns) {
    for (long first = 0; first < columns; first += SPAN)
        for (long row = 0; row < rows; row += HEIGHT)
            switch (rows - row < HEIGHT ? rows - row : HEIGHT) {
#define PART(n)                                                                                   \
    case n:                                                                                       \
        part_of_product(x + row * x_row, x_row, m + first, m_row, y + row * y_row + first, y_row, \
                        count, more, n);                                                          \
        break
                PART(1); PART(2); PART(3); PART(4); PART(5); PART(6);
            }
}

/* Turn the scores (BLOCK) of the `seen` first tokens into weights, the others' into 0, and take them
   into the softmax; returns what is kept of the output so far. */
static float weigh(float *scores, long seen, float *top, float *total) {
    lanes best = all(*top), added = {0};
    for (long i = seen; i < BLOCK; i++) scores[i] = -INFINITY;
    for (long i = 0; i < BLOCK; i += LANES) best = larger(best, load(scores + i));
    float before = *top;
    for (int lane = 0; lane < LANES; lane++) *top = best[lane] > *top ? best[lane] : *top;
    for (long i = 0; i < BLOCK; i += LANES) store(scores + i, power_of_e(load(scores + i) - *top));
    for (long i = seen; i < BLOCK; i++) scores[i] = 0;
    for (long i = 0; i < BLOCK; i += LANES) added += load(scores + i);
    float keep = power_of_e(all(before - *top))[0];
    *total = *total * keep + sum(added);
    return keep;
}

/* Attention of a prompt's T queries (T, H, E) to the `start` tokens that its slot holds before them
   and to those up to each: out (T, H, E). */
void attend_prompt(const float *queries, const float *keys, const float *values, float *out,
                   long tokens, long start, long heads, long kv_heads, long width, long capacity,
                   float scaling, int threads) {
    long shared = heads / kv_heads, most = QUERIES / shared > 1 ? QUERIES / shared : 1;
    long blocks = (tokens + most - 1) / most, wide = (width + SPAN - 1) / SPAN * SPAN;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (long item = 0; item < blocks * kv_heads; item++) {
        /* The last queries see most, and are begun first. */
        long first = (blocks - 1 - item / kv_heads) * most, head = item % kv_heads;
        long count = tokens - first < most ? tokens - first : most, rows = count * shared;
        float query[rows * width], mixed[rows * wide], scores[rows * BLOCK], top[rows], total[rows];
        float turned[width * BLOCK], padded[BLOCK * wide];
        for (long row = 0; row < rows; row++) {
            const float *from = queries + ((first + row % count) * heads + head * shared + row / count) * width;
            for (long d = 0; d < width; d++) query[row * width + d] = from[d] * scaling;
            for (long d = 0; d < wide; d++) mixed[row * wide + d] = 0;
            top[row] = -INFINITY, total[row] = 0;
        }
        for (long token = 0; token < start + first + count; token += BLOCK) {
            long here = start + first + count - token < BLOCK ? start + first + count - token : BLOCK;
            const float *key = keys + (head * capacity + token) * width;
            const float *value = values + (head * capacity + token) * width;
            for (long d = 0; d < width; d++)
                for (long i = 0; i < BLOCK; i++) turned[d * BLOCK + i] = i < here ? key[i * width + d] : 0;
            product(query, width, turned, BLOCK, scores, BLOCK, width, 0, rows, BLOCK);
            for (long row = 0; row < rows; row++) {
                long seen = start + first + row % count + 1 - token;
                seen = seen < 0 ? 0 : seen < here ? seen : here;
                float keep = weigh(scores + row * BLOCK, seen, top + row, total + row);
                if (keep != 1)
                    for (long d = 0; d < wide; d++) mixed[row * wide + d] *= keep;
            }
            for (long i = 0; i < here && wide != width; i++)
                for (long d = 0; d < wide; d++)
                    padded[i * wide + d] = d < width ? value[i * width + d] : 0;
            product(scores, BLOCK, wide == width ? value : padded, wide, mixed, wide, here, 1, rows, wide);
        }
        for (long row = 0; row < rows; row++) {
            float *to = out + ((first + row % count) * heads + head * shared + row / count) * width;
            for (long d = 0; d < width; d++) to[d] = mixed[row * wide + d] / total[row];
        }
    }
}
