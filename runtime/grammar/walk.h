// Parses of a text, byte by byte, and walks of the vocabulary's tree with them.
#ifndef ADALLM_GRAMMAR_WALK_H
#define ADALLM_GRAMMAR_WALK_H
#include "runtime/grammar/vocab.h"

#define FRAME_BOTTOM  UINT32_MAX       // the text ends where the rule ends
#define FRAME_OUTSIDE (UINT32_MAX - 1) // nobody knows here what comes behind the rule

// One parse of a text: a state, what its rule returns to, and for strings the characters so far.
typedef struct {
    uint32_t frame; // index into frames, or one of the two above
    uint32_t count;
    uint16_t state;
} Parse;

typedef struct {
    uint32_t parent;
    uint16_t state, depth; // where to return to; frames down to the bottom, this one included
} Frame;

// All parses of one text: parses[first] to parses[first + n).
typedef struct {
    uint32_t first, n;
    uint32_t frames_end; // frames in use with it
    bool end;            // the text may end here
    bool outside;        // a rule over FRAME_OUTSIDE ended here, after outside_count characters
    uint32_t outside_count;
} ParseSet;

// Sets and frames lie one behind the other and are given up in the opposite order. Fixed in size: what does
// not fit is dropped, which makes the language smaller, never larger.
typedef struct {
    const Grammar *g;
    Parse *parses;
    Frame *frames;
    uint32_t n_parses, n_frames;
    bool exact_counts;             // count characters even where their number changes nothing
    uint32_t deepest;              // frames that were needed at once, at most; the caller sets it to 0
    uint64_t n_steps, n_steps_max; // of single parses; walks stop beyond n_steps_max
} Walker;
enum { WALK_PARSES_MAX = 1 << 16, WALK_FRAMES_MAX = 1 << 16 };

void walker_init(Walker *w);
void walker_free(Walker *w);

// A set on top of the others: begin, add parses, close (adds what is reached without a byte).
ParseSet set_begin(const Walker *w);
void set_add(Walker *w, ParseSet *s, Parse p);
void set_add_return(Walker *w, ParseSet *s, uint32_t frame); // what follows where the rule over `frame` ended
void set_close(Walker *w, ParseSet *s);
void set_drop(Walker *w, const ParseSet *s); // this one and all above
uint32_t frame_depth(const Walker *w, uint32_t frame);

static inline bool walker_is_spent(const Walker *w) { return w->n_steps > w->n_steps_max; }
ParseSet walker_step(Walker *w, const ParseSet *from, uint8_t byte);

// A walk of the tree: nodes to which some parse leads. Whoever walks fills v, w and sets, and what it wants.
typedef struct {
    const GrammarVocab *v;
    Walker *w;
    ParseSet *sets;   // [len_max + 1] by depth
    uint16_t *states; // [len_max + 1] by depth; for walk_inside
    uint32_t *mask;   // tokens that are reached are set here; NULL: nobody asks
    void (*on_node)(void *user, uint32_t node, const ParseSet *s); // of every node; NULL: nobody asks
    void (*on_leave)(void *user, uint32_t node);                   // where a rule over FRAME_OUTSIDE ends
    void *user;
} Walk;
// All nodes in [begin, end), a run of siblings with all below them; `s`, the topmost set, is that at their
// parent, and stays.
void walk_nodes(Walk *k, uint32_t begin, uint32_t end, ParseSet s);
// The whole tree from one state over FRAME_OUTSIDE, which is in no counted string.
void walk_inside(Walk *k, uint16_t state);
#endif
