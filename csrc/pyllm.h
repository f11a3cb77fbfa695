/* pyllm.h: the seam between C and its callers, and the only header that cffi reads.
 *
 * A model is a program: a flat list of ops, written once by Python (pyllm/compile.py) and run by pl_run() once per
 * step. The program is code; the step is data: which tokens, at which positions, of which sequences, reading which
 * pages of the KV cache. Only scalars, pointers and plain structs cross; every struct is mirrored by make_abi.py.
 *
 * Functions return 0 or a count on success and a negative PL_E* code on failure unless they say otherwise. */
#ifndef PYLLM_H
#define PYLLM_H
#include <stdint.h>

#if defined(_WIN32)
#define PL_API __declspec(dllexport)
#else
#define PL_API __attribute__((visibility("default")))
#endif

#define PL_ABI_VERSION 1

/* error codes */
#define PL_E_ARG -1
#define PL_E_MEM -2
#define PL_E_TYPE -3
#define PL_E_LOGITS -4 /* every logit is -inf or NaN */
#define PL_E_DUP -5    /* vocabulary: the same text or merge twice */
#define PL_E_VOCAB -6  /* vocabulary: a merge of something that is not a token, a score that is no number */
#define PL_E_NUMBER -7 /* a value is infinite or NaN */
#define PL_E_RANGE -8  /* a value is beyond what the type can hold */

/* a view's row count when it is not a number: tokens, sequences or output rows of the step */
#define PL_ROWS_T -1
#define PL_ROWS_S -2
#define PL_ROWS_O -3

/* tokens per KV page */
#define PL_PAGE 16
/* rows per packed weight panel */
#define PL_PANEL 16
/* tokens up to which a step counts as one of few tokens: see pl_op.local and pl_op.barrier */
#define PL_FEW 2

/* pl_view.layout */
#define PL_PLAIN 0
#define PL_PACKED 1

/* ---- machine ---------------------------------------------------------------------------------------------- */

PL_API int32_t pl_abi_version(void);
/* Index of the level in use; the best the CPU has unless the environment's PYLLM_CPU names a lower one. */
PL_API int32_t pl_cpu_level(void);
PL_API int32_t pl_cpu_best(void);
/* Number of levels this library was built with, and their names in ascending order ("ref", "avx2", ...). */
PL_API int32_t pl_cpu_levels(void);
PL_API const char *pl_cpu_level_name(int32_t level);
/* 1 if this CPU has that level, else 0. The levels of a CPU need not be all up to its best. */
PL_API int32_t pl_cpu_has(int32_t level);
/* Choose a level that the CPU has. Affects programs and packs made afterwards; PL_E_ARG for any other. */
PL_API int32_t pl_cpu_set_level(int32_t level);

/* ---- tables: read by Python so that no list is written twice ---------------------------------------------- */

typedef struct pl_type_info {
  const char *name; /* GGUF's spelling, "Q4_K" */
  int32_t id;       /* GGUF's number */
  int32_t block;    /* elements per block */
  int32_t bytes;    /* bytes per block */
  int32_t act;      /* activations of its matmul: -1 no mm kernel, 0 F32 rows, 1 Q8 rows */
} pl_type_info;
/* Entry i of the type table; NULL past the end. */
PL_API const pl_type_info *pl_type_at(int32_t i);

typedef struct pl_op_info {
  const char *name;
  int32_t id;
} pl_op_info;
PL_API const pl_op_info *pl_op_at(int32_t i);

typedef struct pl_kernel_info {
  const char *op;    /* "mm", "deq", "attn", ... */
  const char *type;  /* tensor type, or "" */
  const char *level; /* the level whose kernel is in use */
} pl_kernel_info;
/* Entry i of the kernel table in use at the current level; 0, or PL_E_ARG past the end. */
PL_API int32_t pl_kernel_at(int32_t i, pl_kernel_info *out);

/* ---- memory ----------------------------------------------------------------------------------------------- */

/* Zeroed pages, 64-byte aligned; NULL when out of memory. A page takes memory once it is written. huge: ask for huge
 * pages, which are quicker to fill and to read, and take memory in units of megabytes. */
PL_API void *pl_mem_alloc(int64_t bytes, int32_t huge);
PL_API void pl_mem_free(void *p, int64_t bytes);

/* ---- tensors ---------------------------------------------------------------------------------------------- */

/* dst [n] float32 = the n elements at src (n a multiple of the type's block). PL_E_TYPE if there is no kernel. */
PL_API int32_t pl_dequantize(int32_t type, const void *src, float *dst, int64_t n);
/* dst = x [rows][cols] as rows of this type: F32, F16, BF16 or one that has an encoder. weights [cols] >= 0, or NULL: how
 * much the squared error counts in each column (an importance matrix); where all are 0, or NULL, all count alike. The
 * result depends on x and weights alone. PL_E_TYPE if there is no encoder; PL_E_ARG if cols is not a multiple of the
 * type's block or a weight is negative or no number; PL_E_NUMBER or PL_E_RANGE for values that the type cannot hold, dst
 * then being undefined; PL_E_MEM. */
PL_API int32_t pl_quantize(int32_t type, const float *x, int64_t rows, int64_t cols, const float *weights,
                           void *dst);
/* Bytes of [rows][cols] of this type in the packed layout of the current level; 0 if that level uses the plain
 * (file) layout; PL_E_TYPE if no kernel multiplies with this type. */
PL_API int64_t pl_pack_bytes(int32_t type, int64_t rows, int64_t cols);
/* Pack panels [first, last) of PL_PANEL rows each from the plain tensor at src to the packed tensor at dst. */
PL_API int32_t pl_pack(int32_t type, const void *src, int64_t rows, int64_t cols, int64_t first, int64_t last,
                       void *dst);

/* ---- thread pool ------------------------------------------------------------------------------------------ */

typedef struct pl_pool pl_pool;
/* n_threads counts the caller, which takes part. NULL when threads cannot be made. */
PL_API pl_pool *pl_pool_new(int32_t n_threads);
PL_API void pl_pool_free(pl_pool *pool);
/* pl_pack over all panels by all threads of the pool. mapped: src lies in a read-only mapping of a file, whose pages
 * are dropped from this process as they are packed. */
PL_API int32_t pl_pool_pack(pl_pool *pool, int32_t type, const void *src, int64_t rows, int64_t cols, void *dst,
                            int32_t mapped);

/* pl_quantize by all threads of the pool, from plain rows of any type that pl_dequantize takes. */
PL_API int32_t pl_pool_quantize(pl_pool *pool, int32_t type, int32_t src_type, const void *src, int64_t rows,
                                int64_t cols, const float *weights, void *dst);

/* ---- program and step ------------------------------------------------------------------------------------- */

typedef struct pl_view {
  int32_t buf;    /* index into the program's buffers; -1: no view */
  int32_t type;   /* GGUF type id, or PL_Q8 rows for quantized activations */
  int32_t layout; /* PL_PLAIN or PL_PACKED */
  int32_t rows;   /* a number, or PL_ROWS_* */
  int64_t cols;   /* elements per row */
  int64_t off;    /* bytes from the start of the buffer */
  int64_t stride; /* bytes per row */
} pl_view;

/* type id of activations quantized to struct pl_q8 (csrc/quant/blocks.h), blocks of 32 values */
#define PL_TYPE_ACT_Q8 1000
/* sizeof(struct pl_q8) */
PL_API int32_t pl_act_bytes(void);

typedef struct pl_op {
  int32_t kind; /* an id from csrc/prog/op.inc */
  int32_t
      barrier; /* wait for all threads before this op (computed in compile.py from the hazards): bit 0 in steps of
                      more than PL_FEW tokens, bit 1 in steps of few */
  int32_t
      local;    /* in steps of few tokens every thread makes this op's result for itself, or reads its input (src1)
                      from what it made for itself */
  int32_t i[8]; /* meaning per kind: see op.inc */
  float f[8];
  pl_view dst[2];
  pl_view src[5];
} pl_op;

typedef struct pl_step {
  int32_t n_tokens;         /* T */
  int32_t n_seqs;           /* S */
  int32_t n_out;            /* O */
  int32_t max_pages;        /* row length of page */
  const int32_t *token;     /* [T] token ids */
  const int32_t *pos;       /* [T] position of each token in its sequence */
  const int32_t *slot;      /* [T] where its K and V go: page * PL_PAGE + offset in page */
  const int32_t *q_start;   /* [S+1] tokens of sequence s are q_start[s] .. q_start[s+1]-1 */
  const int32_t *kv_len;    /* [S] length of the sequence after this step */
  const int32_t *page;      /* [S][max_pages] page ids in order */
  const int32_t *out;       /* [O] tokens whose logits are wanted */
  const int32_t *long_rope; /* [S] 1: the sequence takes the rotary frequencies for long ones; NULL: none does */
} pl_step;

/* Bytes of one page (PL_PAGE tokens) of n_kv heads of head_dim values in a K (is_k) or V cache of this type; 0 if a
 * cache cannot hold them. */
PL_API int64_t pl_kv_page_bytes(int32_t type, int32_t n_kv, int32_t head_dim, int32_t is_k);

typedef struct pl_program pl_program;
/* Copies ops and base; bases[i] is the start of buffer i and sizes[i] its bytes: every view is checked against
 * them for max_tokens tokens. scratch is per-thread memory of pl_program_scratch() bytes per thread.
 * NULL on a malformed program; *bad is then the index of the op. */
PL_API pl_program *pl_program_new(const pl_op *ops, int32_t n_ops, void *const *bases, const int64_t *sizes,
                                  int32_t n_bufs, int32_t max_tokens, int32_t max_seqs, int32_t max_out,
                                  int32_t *bad);
PL_API void pl_program_free(pl_program *p);
/* Bytes of working memory that one thread needs to run these ops. */
PL_API int64_t pl_program_scratch(const pl_op *ops, int32_t n_ops, int32_t max_tokens);
/* Bytes of working memory that all threads share, needed when there are several. */
PL_API int64_t pl_program_shared(const pl_op *ops, int32_t n_ops);
/* Run ops [first, last) for this step on the pool's threads (woken once). Checks the step's counts. */
PL_API int32_t pl_run(pl_program *p, pl_pool *pool, const pl_step *step, int32_t first, int32_t last);

/* ---- sampling --------------------------------------------------------------------------------------------- */

typedef struct pl_sampler_params {
  float temperature; /* <= 0: greedy */
  float dynatemp_range, dynatemp_exponent;
  float top_p, min_p, typical_p;
  float top_n_sigma; /* <= 0: off */
  float xtc_probability, xtc_threshold;
  float repeat_penalty, frequency_penalty, presence_penalty;
  float dry_multiplier, dry_base;
  float mirostat_tau, mirostat_eta;
  int32_t top_k;                     /* <= 0: off */
  int32_t repeat_last_n, dry_last_n; /* tokens; -1: all */
  int32_t dry_allowed_length;
  int32_t mirostat; /* 0, 1 or 2 */
  int32_t n_bias, n_breakers;
  uint64_t seed;
  const int32_t *bias_id; /* [n_bias] */
  const float *bias;      /* [n_bias] */
  /* DRY's sequence breakers: breaker i is breaker_head[i] followed by breaker_tail[breaker_off[i] ..
   * breaker_off[i+1]-1]; heads ascend */
  const int32_t *breaker_head; /* [n_breakers] */
  const int32_t *breaker_off;  /* [n_breakers+1] */
  const int32_t *breaker_tail;
} pl_sampler_params;

typedef struct pl_sampler pl_sampler;
/* A sampler for one sequence; copies params and what they point to. NULL when a parameter is out of range or
 * memory is out. */
PL_API pl_sampler *pl_sampler_new(const pl_sampler_params *params, int32_t n_vocab);
PL_API void pl_sampler_free(pl_sampler *s);
/* Append ids [n] to the history that penalties and DRY look at. */
PL_API int32_t pl_sampler_accept(pl_sampler *s, const int32_t *ids, int32_t n);
/* Draw a token from logits [n_vocab], which are only read. The k-th call of a sampler uses random numbers that
 * depend on the seed and k alone. PL_E_LOGITS when no token can be drawn. */
PL_API int32_t pl_sampler_sample(pl_sampler *s, const float *logits);
/* Draw and accept a token for each of n rows of logits [n][cols], all threads of the pool taking part; no two rows
 * may share a sampler. token[i] is what pl_sampler_sample says of row i; rows whose sampler is NULL are skipped. */
PL_API void pl_sample_rows(pl_pool *pool, pl_sampler *const *sampler, const float *logits, int64_t cols, int32_t n,
                           int32_t *token);
/* The candidates and probabilities that the next pl_sampler_sample would draw from, without drawing: returns how
 * many there are and writes the n most probable. */
PL_API int32_t pl_sampler_candidates(pl_sampler *s, const float *logits, int32_t n, int32_t *ids, float *probs);
/* Log of the softmax of logits [n_vocab] as they are: the n best (returns how many were written) in descending
 * order, and that of token (unless it is -1). */
PL_API int32_t pl_sampler_logprobs(pl_sampler *s, const float *logits, int32_t token, int32_t n, int32_t *ids,
                                   float *logprobs, float *token_logprob);

/* ---- tokenizer -------------------------------------------------------------------------------------------- */

/* Handles are immutable: any number of threads may encode with one. Texts come as one buffer and n+1 offsets into
 * it, ids are row numbers of the vocabulary. seed: a random number that keys the hash tables. */

typedef struct pl_bpe pl_bpe;
/* Byte-level BPE. Tokens and merges ("LEFT RIGHT") spelled in GPT-2's byte alphabet; use[i] != 0: token i may come
 * out of plain text (a token with characters outside the alphabet never does). whole_words: a word that is a token
 * is not merged at all. 0, or an error with *bad the token, or n_tokens plus the merge, that it is about. */
PL_API int32_t pl_bpe_new(const uint8_t *tokens, const int64_t *token_off, const uint8_t *use, int32_t n_tokens,
                          const uint8_t *merges, const int64_t *merge_off, int32_t n_merges, int32_t whole_words,
                          uint64_t seed, pl_bpe **out, int32_t *bad);
PL_API void pl_bpe_free(pl_bpe *h);
/* Words to ids, and ids_end [n_words] to where each word's ids end; bytes without a token give none. cap is at
 * least the bytes of all words. The number of ids, or an error. */
PL_API int64_t pl_bpe_encode(const pl_bpe *h, const uint8_t *text, const int64_t *word_off, int32_t n_words,
                             int32_t *ids, int64_t cap, int64_t *ids_end);

typedef struct pl_spm pl_spm;
/* SentencePiece BPE. use[i] 1: token i comes out of plain text, 2: an unused token, merged through but never put
 * out, 0: neither. byte_id [256]: the token of each byte, or -1; where there is none, unk must be a token. */
PL_API int32_t pl_spm_new(const uint8_t *tokens, const int64_t *token_off, const uint8_t *use, const float *score,
                          int32_t n_tokens, const int32_t *byte_id, int32_t unk, uint64_t seed, pl_spm **out,
                          int32_t *bad);
PL_API void pl_spm_free(pl_spm *h);
/* The text's n < 2^31 bytes, spaces as U+2581, to ids [cap], cap >= n. The number of ids, or an error. */
PL_API int64_t pl_spm_encode(const pl_spm *h, const uint8_t *text, int64_t n, int32_t *ids, int64_t cap);

typedef struct pl_ugm pl_ugm;
/* Unigram. use[i] != 0: token i may come out of plain text. byte_id [256]: the token of each byte, or -1; where
 * there is none, unk must be a token. charsmap [n_charsmap]: SentencePiece's table of replacements, or n_charsmap 0.
 * PL_E_VOCAB: the score of token *bad is no number, or with *bad -1 the table is not sound. */
PL_API int32_t pl_ugm_new(const uint8_t *tokens, const int64_t *token_off, const uint8_t *use, const float *score,
                          int32_t n_tokens, const int32_t *byte_id, int32_t unk, const uint8_t *charsmap,
                          int64_t n_charsmap, uint64_t seed, pl_ugm **out, int32_t *bad);
PL_API void pl_ugm_free(pl_ugm *h);
/* The text's n bytes after replacement, spaces as U+2581, to out [cap]. prefix: put a space before it; merge: make
 * one space of many, and none at either end. The number of bytes, even if it is more than cap (the rest is not
 * stored), or an error. */
PL_API int64_t pl_ugm_normalize(const pl_ugm *h, const uint8_t *text, int64_t n, int32_t prefix, int32_t merge,
                                uint8_t *out, int64_t cap);
/* Normalized text of n < 2^31-1 bytes to ids [cap], cap >= n. The number of ids, or an error. */
PL_API int64_t pl_ugm_encode(const pl_ugm *h, const uint8_t *text, int64_t n, int32_t *ids, int64_t cap);

typedef struct pl_wpm pl_wpm;
/* WordPiece. use[i] 1: token i starts a word, 2: it continues one, 0: neither. unk: what a word is that does not
 * come out whole. */
PL_API int32_t pl_wpm_new(const uint8_t *tokens, const int64_t *token_off, const uint8_t *use, int32_t n_tokens,
                          int32_t unk, uint64_t seed, pl_wpm **out);
PL_API void pl_wpm_free(pl_wpm *h);
/* As pl_bpe_encode. */
PL_API int64_t pl_wpm_encode(const pl_wpm *h, const uint8_t *text, const int64_t *word_off, int32_t n_words,
                             int32_t *ids, int64_t cap, int64_t *ids_end);

typedef struct pl_special pl_special;
/* A finder of n > 0 texts that stand for ids [n] wherever they occur. NULL when out of memory or on a bad
 * argument. */
PL_API pl_special *pl_special_new(const uint8_t *texts, const int64_t *off, const int32_t *ids, int32_t n,
                                  uint64_t seed);
PL_API void pl_special_free(pl_special *h);
/* Occurrences that do not overlap, leftmost first and of those the longest: hits [cap][3] = first byte, byte after
 * the last, id. Their number, even if it is more than cap (the rest is not stored). */
PL_API int64_t pl_special_find(const pl_special *h, const uint8_t *text, int64_t n, int64_t *hits, int64_t cap);

#endif
