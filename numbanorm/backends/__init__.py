"""The contract: the launchers that every backend provides, under the same names and signatures.

A backend is a package with a string ``name``, a function ``availability()`` that
returns None or why the backend cannot run here, and the launchers below.

Arrays handed to a launcher are dense, C-ordered, aligned and in native byte order;
inputs may be read-only; outputs are passed in and written completely. Launchers
neither validate nor reshape; they may use scratch memory of bounded size.
No dimension is zero. `x` and `y` may be the same memory. Parameters are in the
compute dtype of `x` (float32, or float64 for float64), moments in float64, given
statistics both in float32 or both in float64, whatever x is; of a mean in float64 no
digit is lost.

=====================  ====================================================================
launcher               what it does
=====================  ====================================================================
``moments_rows``       x (n_rows, n_cols): count, mean and m2 (n_rows,) of each row
``moments_cols``       x (n_outer, n_reduce, n_inner): moments (n_outer, n_inner) of the middle
``combine_moments``    parts (n_outer, n_reduce, n_inner) with unequal counts, middle merged
``finish_moments``     moments (n,): mean and ``m2 / (count - ddof)`` in any float dtype
``mean_var_rows``      both at once where x is dense and has no weights: x (n_rows, n_cols)
``mean_var_cols``      the same for x (n_outer, n_reduce, n_inner) over the middle
``mean_var_channels``  the same for x (n, n_channels, n_inner) over the first and last axis
``norm_rows``          x (n_rows, n_cols): each row normalised, a parameter per column
``norm_groups``        x (n_rows, n_channels, n_inner): each row normalised, a parameter per
                       channel, cyclic: channel c of row r has parameter
                       ``(r * n_channels + c) % n_params``
``norm_channels``      x (n, n_channels, n_inner): statistics over the first and last axis, a
                       parameter per channel; always gives mean and biased var per channel, in
                       float64 on the host and in the compute dtype of x on a device
``affine_rows``        x (n_outer, n_mid, n_inner) normalised with given statistics; these and
                       the parameters are 3-D and broadcast against x; here the statistics'
                       last dimension is 1
``affine_cols``        the same with statistics that vary along the last axis
``local_response``     x (n_outer, n_channels, n_inner): each channel divided by a power of its
                       neighbours' sum of squares, over a window of channels
``update_running``     running statistics in place: ``(1 - momentum) * old + momentum * new``
=====================  ====================================================================

and the gradients of four of them, from dy and x of one shape and dtype:

===========================  ===============================================================
launcher                     what it does
===========================  ===============================================================
``norm_rows_backward``       dx of ``norm_rows``, dgamma and dbeta per column (or one for all)
``norm_groups_backward``     dx of ``norm_groups``, dgamma and dbeta per (cyclic) parameter
``norm_channels_backward``   dx of ``norm_channels``, dgamma and dbeta per channel; with `fixed`
                             those of statistics that do not depend on x (evaluation)
``local_response_backward``  dx of ``local_response``
===========================  ===============================================================

and one from y, so that a caller need not keep x, which the host's backends alone have:

==================================  =======================================================
``norm_rows_backward_from_output``  ``norm_rows_backward`` with ``xhat = (y - beta) / gamma``;
                                    gamma and beta one per column, or one for all where
                                    dgamma and dbeta are not wanted; gamma without zeros
==================================  =======================================================

and norms of which some elements of x take no part, which the host's backends alone have:

============================  =============================================================
``masked_norm_rows``          ``norm_rows`` of the elements that take part, with a ddof
``masked_norm_groups``        ``norm_groups`` of the elements that take part, with a ddof
``masked_affine``             x (n, n_channels, n_inner) with given statistics
                              (n_channels,) in float64 and a parameter per channel
``masked_rows_backward``      ``norm_rows_backward``; sums, means and n are of the elements
                              that take part
``masked_groups_backward``    ``norm_groups_backward`` in the same way
``masked_channels_backward``  ``norm_channels_backward`` in the same way
============================  =============================================================

With ``xhat = (x - mean) * rstd``, ``g = dy * gamma`` and means over the n elements of a set::

    dx = rstd * (g - mean(g) - xhat * sum(g * xhat) / (n - ddof) / (1 - std_eps * rstd))
    dgamma = sum(dy * xhat), dbeta = sum(dy)            # evaluation: dx = rstd * g

Every other layout is gathered into one of these by the pipeline.

Common arguments:

* ``weights``: None; an array of x's shape, boolean (which elements take part) or float (how much
  each counts); or True: all take part that are not NaN. On cuda None or a boolean array.
  On the host also int64 counts: how many of the first elements of each row of ``moments_rows`` (n_rows,)
  or of each line of n_inner of ``moments_cols`` (n_outer * n_reduce,) take part; the others are not read.
  A set without elements has count, mean and m2 zero.
* ``ddof``, ``root``: what is taken from the count (the divisor is at least zero), and whether
  the square root of the variance is stored. An output of length 0 is not wanted. Results of
  ``mean_var_*`` have x's own dtype.
* ``gamma``, ``beta``: one per parameter, or of length 1 (the same for all).
* ``eps``, ``eps_on_std``: see :func:`numbanorm._recurrences.reciprocal_std`.
* ``use_mean``: False leaves the mean at zero, so that ``rstd`` is that of the mean square.
* ``mean``, ``rstd`` of ``norm_rows`` and ``norm_groups``: outputs in the compute dtype, one
  per row, or of length 0 when the caller does not want them. Of a gradient: inputs, one per row or channel, in
  either dtype of given statistics. `mean` may have been rounded to float32, which far from zero is
  less than xhat needs: where statistics are x's own, a launcher takes off the mean of xhat.
  With ``use_mean=False`` mean is not looked at.
* ``std_eps``: eps where it was added to the standard deviation, else 0.
* ``taken``: which elements take part: a boolean array of x's shape, or, int64, how many of the first elements of
  each line do. A line is a run of x's last axis; where that of ``masked_affine`` and ``masked_channels_backward``
  has length 1, a run of channels. The others may hold anything, and nothing beyond a line's first elements is read.
  Of a set without elements mean and rstd are NaN, and it adds nothing to dgamma and dbeta.
* ``keep``: what is written where elements do not take part: x (of a gradient dy) itself, or zero.
* ``before``, ``after``: channels of a window besides its own; cut off at the ends. ``alpha``, ``beta``, ``k`` of
  ``(k + alpha * sum)**-beta``.
* ``dx``, ``dgamma``, ``dbeta``: outputs, of length 0 where not wanted; dx may be the memory of dy
  or x; dgamma and dbeta are in the compute dtype and one per parameter.
  Sums over sets are merged in float64, on a device in pairs of the compute dtype, and in a fixed order:
  every run gives the same bits.
"""

LAUNCHERS = (
    "moments_rows",
    "moments_cols",
    "combine_moments",
    "finish_moments",
    "mean_var_rows",
    "mean_var_cols",
    "mean_var_channels",
    "norm_rows",
    "norm_groups",
    "norm_channels",
    "affine_rows",
    "affine_cols",
    "local_response",
    "update_running",
    "norm_rows_backward",
    "norm_groups_backward",
    "norm_channels_backward",
    "local_response_backward",
)

#: Launchers of the cpu and reference backends alone.
HOST_LAUNCHERS = (
    "norm_rows_backward_from_output",
    "masked_norm_rows",
    "masked_norm_groups",
    "masked_affine",
    "masked_rows_backward",
    "masked_groups_backward",
    "masked_channels_backward",
)
