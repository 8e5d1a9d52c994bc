//! Programs as texts, from which the tests start.

/// A vanilla RNN on `[h; x]`, read out at every step; the loss is a mean square over rows.
pub const RNN_JOINED: &str = "
program rnn {
  axis T = time
  sequence x: f32[T, B, 3]
  sequence target: f32[T, B, 2]
  parameter w: f32[7, 4] = glorot
  parameter b: f32[4] = 0
  parameter r: f32[4, 2] = glorot
  scan rnn {
    shared w: f32[7, 4] = w
    shared b: f32[4] = b
    each x: f32[B, 3] = x
    carry h: f32[B, 4] = 0
    %0: f32[B, 7] = concat h, x
    %1: f32[B, 4] = dot %0, w
    %2: f32[B, 4] = add %1, b
    %3: f32[B, 4] = tanh %2
    yield h = %3
    next h = %3
  }
  %0: f32[T, B, 4] = yield h of rnn
  %1: f32[T, B, 2] = dot %0, r
  %2: f32[T, B, 2] = sub %1, target
  %3: f32[T, B, 2] = mul %2, %2
  %4: f32[2] = sum_rows %3
  %5: f32[1] = sum %4
  %6: f32 = reshape %5
  output y = %1
  objective %6
}";

/// The same cell with one product for each weight, the bias in the middle, and the readout in the loop.
pub const RNN_SPLIT: &str = "
program rnn {
  axis T = time
  sequence x: f32[T, B, 3]
  sequence target: f32[T, B, 2]
  parameter w_h: f32[4, 4] = glorot
  parameter w_x: f32[3, 4] = glorot
  parameter b: f32[4] = 0
  parameter r: f32[4, 2] = glorot
  scan rnn {
    shared w_h: f32[4, 4] = w_h
    shared w_x: f32[3, 4] = w_x
    shared b: f32[4] = b
    shared r: f32[4, 2] = r
    each x: f32[B, 3] = x
    each target: f32[B, 2] = target
    carry h: f32[B, 4] = 0
    %0: f32[B, 4] = dot x, w_x
    %1: f32[B, 4] = add b, %0
    %2: f32[B, 4] = dot h, w_h
    %3: f32[B, 4] = add %2, %1
    %4: f32[B, 4] = tanh %3
    %5: f32[B, 2] = dot %4, r
    %6: f32[B, 2] = sub %5, target
    %7: f32[B, 2] = mul %6, %6
    %8: f32[2] = sum_rows %7
    %9: f32[1] = sum %8
    %10: f32 = reshape %9
    yield y = %5
    sum loss = %10
    next h = %4
  }
  %0: f32[T, B, 2] = yield y of rnn
  %1: f32 = total loss of rnn
  output y = %0
  objective %1
}";

/// An LSTM whose gates are split after one affine map; the last state is read out.
pub const LSTM: &str = "
program lstm {
  axis T = time
  sequence x: f32[T, B, 3]
  batch target: f32[B, 2]
  parameter w: f32[7, 16] = glorot
  parameter b: f32[16] = 0
  parameter r: f32[4, 2] = glorot
  scan lstm {
    shared w: f32[7, 16] = w
    shared b: f32[16] = b
    each x: f32[B, 3] = x
    carry h: f32[B, 4] = 0
    carry c: f32[B, 4] = 0
    %0: f32[B, 7] = concat h, x
    %1: f32[B, 16] = dot %0, w
    %2: f32[B, 16] = add %1, b
    %3: f32[B, 4] = slice %2 0..4
    %4: f32[B, 4] = slice %2 4..8
    %5: f32[B, 4] = slice %2 8..12
    %6: f32[B, 4] = slice %2 12..16
    %7: f32[B, 4] = sigmoid %3
    %8: f32[B, 4] = sigmoid %4
    %9: f32[B, 4] = sigmoid %5
    %10: f32[B, 4] = tanh %6
    %11: f32[B, 4] = mul %8, c
    %12: f32[B, 4] = mul %7, %10
    %13: f32[B, 4] = add %11, %12
    %14: f32[B, 4] = tanh %13
    %15: f32[B, 4] = mul %9, %14
    yield h = %15
    next h = %15
    next c = %13
  }
  %0: f32[T, B, 4] = yield h of lstm
  %1: f32[B, 4] = last %0
  %2: f32[B, 2] = dot %1, r
  %3: f32[B, 2] = sub %2, target
  %4: f32[B, 2] = mul %3, %3
  %5: f32[2] = sum_rows %4
  %6: f32[1] = sum %5
  %7: f32 = reshape %6
  output y = %2
  objective %7
}";

/// A GRU on embedded symbols, with a gate on the state before its product.
pub const GRU: &str = "
program gru {
  axis T = time
  sequence symbol: i32[T, B] < 5
  sequence target: f32[T, B, 4]
  batch start: f32[B, 4]
  parameter e: f32[5, 3] = glorot
  parameter w: f32[7, 8] = glorot
  parameter b: f32[8] = 0
  parameter u: f32[7, 4] = glorot
  scan gru {
    shared e: f32[5, 3] = e
    shared w: f32[7, 8] = w
    shared b: f32[8] = b
    shared u: f32[7, 4] = u
    each symbol: i32[B] = symbol
    carry h: f32[B, 4] = start
    %0: f32[B, 3] = gather e, symbol
    %1: f32[B, 7] = concat h, %0
    %2: f32[B, 8] = dot %1, w
    %3: f32[B, 8] = add %2, b
    %4: f32[B, 8] = sigmoid %3
    %5: f32[B, 4] = slice %4 0..4
    %6: f32[B, 4] = slice %4 4..8
    %7: f32[B, 4] = mul %5, h
    %8: f32[B, 7] = concat %7, %0
    %9: f32[B, 4] = dot %8, u
    %10: f32[B, 4] = tanh %9
    %11: f32[B, 4] = sub 1, %6
    %12: f32[B, 4] = mul %11, h
    %13: f32[B, 4] = mul %6, %10
    %14: f32[B, 4] = add %12, %13
    yield h = %14
    next h = %14
  }
  %0: f32[T, B, 4] = yield h of gru
  %1: f32[T, B, 4] = sub %0, target
  %2: f32[T, B, 4] = mul %1, %1
  %3: f32[4] = sum_rows %2
  %4: f32[1] = sum %3
  %5: f32 = reshape %4
  output y = %0
  objective %5
}";

/// A gate without a state, a loop that runs backwards, and two states of which one is shared.
pub const MIXED: &str = "
program mixed {
  axis T = time
  sequence x: f32[T, B, 3]
  batch context: f32[B, 3]
  parameter w: f32[3, 3] = glorot
  parameter g: f32[3] = 1
  scan back reverse {
    shared w: f32[3, 3] = w
    shared g: f32[3] = g
    batch context: f32[B, 3] = context
    each x: f32[B, 3] = x
    carry h: f32[B, 3] = context
    carry n: f32 = 0
    %0: f32[B, 3] = dot context, w
    %1: f32[B, 3] = mul x, g
    %2: f32[B, 3] = dot %1, w
    %3: f32[B, 3] = sigmoid %2
    %4: f32[B, 3] = mul %3, h
    %5: f32[B, 3] = sub %4, %0
    %6: f32[B, 3] = sub x, %5
    %7: f32 = add n, 0.125
    %8: f32[B, 3] = mul %6, %7
    %9: f32[B, 3] = tanh %8
    %10: f32[B, 3] = mul %9, 2
    %11: f32[3, 3] = dot.tn x, %10
    %12: f32[3, 3] = mul %11, %11
    %13: f32[3] = sum_rows %10
    yield z = %10
    yield gate = %3
    yield same = context
    sum squares = %12
    sum bias = %13
    sum rows = %10
    sum fixed = g
    next h = %9
    next n = %7
  }
  %0: f32[T, B, 3] = yield z of back
  %1: f32[T, B, 3] = yield gate of back
  %2: f32[T, B, 3] = yield same of back
  %3: f32[3, 3] = total squares of back
  %4: f32[3] = total bias of back
  %5: f32[B, 3] = total rows of back
  %6: f32[3] = total fixed of back
  %7: f32 = final n of back
  %8: f32[B, 3] = final h of back
  output z = %0
  output gate = %1
  output same = %2
  output squares = %3
  output bias = %4
  output rows = %5
  output fixed = %6
  output n = %7
  output h = %8
}";
